r"""CRC-32C (Castagnoli), by ``google-crc32c`` where it is installed and by numpy where it is not.

A message is a polynomial over GF(2) and its CRC the remainder of :math:`m(x) x^{32}` modulo the
generator P. Two facts make that fast without a compiled loop:

- :math:`x^{5685} + x^{1362} + x^{426} + 1` is a multiple of P, and so is the same with every
  exponent times a power of two, by squaring. So a block of high bytes moves down to three lower
  places by three XORs of whole arrays, until fewer than 5685 bytes are left.
- The rest is the XOR of the remainders of :math:`x^k` over its bits that are set.

References:
    G. Castagnoli, S. Bräuer and M. Herrmann, "Optimization of cyclic redundancy-check codes with 24
    and 32 parity bits", IEEE Transactions on Communications, 1993.
"""

from functools import cache
from types import ModuleType

import numpy as np
import numpy.typing as npt

from medkit._core import optional

Bytes = npt.NDArray[np.uint8]

_GENERATOR = 0x82F63B78  # P without x^32, the highest power in the lowest bit
_HIGH, _MIDDLE, _LOW = 5685, 1362, 426
_BLOCK = _HIGH - _MIDDLE  # so many units move at once without reaching each other
_UNIT = 16  # bytes per unit while much is left; a power of two
_PART = 1 << 20  # bytes that are folded together: they stay in the processor's cache
_SHORT = 64  # bytes up to which a loop over a table is faster


def crc32c(data: Bytes) -> int:
    """Return the CRC-32C of contiguous bytes."""
    engine = _engine()
    if engine is not None:
        return int(engine.value(data))
    return _by_table(data) if len(data) <= _SHORT else _by_folding(data)


def _by_table(data: Bytes) -> int:
    table = _table()
    crc = 0xFFFFFFFF
    values: list[int] = data.tolist()
    for byte in values:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _by_folding(data: Bytes) -> int:
    """Reduce the message part by part to fewer than 5685 bytes of the same remainder."""
    rest = data[:4] ^ np.uint8(0xFF)  # the CRC begins with 32 bits set
    for start in range(4, len(data), _PART):
        rest = np.concatenate((rest, data[start : start + _PART]))
        rest = _fold(_fold(rest, _UNIT), 1)
    bits = np.unpackbits(rest, bitorder="little")
    remainders = _remainders()[-len(bits) :]
    return int(np.bitwise_xor.reduce(remainders * bits)) ^ 0xFFFFFFFF


def _fold(message: Bytes, unit: int) -> Bytes:
    """Move bytes from the front of ``message`` to the back of it until few are left."""
    high, middle, low = (power * unit for power in (_HIGH, _MIDDLE, _LOW))
    done = 0
    while len(message) - done > high:
        count = min(_BLOCK * unit, len(message) - done - high)
        block = message[done : done + count]
        for power in (middle, low, 0):
            there = message[done + high - power :][:count]
            np.bitwise_xor(there, block, out=there)
        done += count
    return message[done:]


@cache
def _engine() -> ModuleType | None:
    """Return ``google_crc32c`` if it is here and compiled."""
    if optional.is_available("google_crc32c"):
        engine = optional.require("google_crc32c", extra="fast")
        return engine if engine.implementation == "c" else None
    return None


@cache
def _table() -> list[int]:
    """Return the CRC register after each byte."""
    return [_times_x(byte, 8) for byte in range(256)]


@cache
def _remainders() -> npt.NDArray[np.uint32]:
    """Return x^(k + 32) modulo P for each bit of 5685 bytes, from the first bit to the last."""
    value, powers = _times_x(1 << 31, 32), np.empty(_HIGH * 8, np.uint32)
    for k in range(len(powers)):
        powers[-1 - k] = value
        value = _times_x(value, 1)
    return powers


def _times_x(value: int, times: int) -> int:
    for _ in range(times):
        value = (value >> 1) ^ (_GENERATOR if value & 1 else 0)
    return value
