"""CRC-32C by numpy equals its definition, published values and google-crc32c."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkit.data import _crc32c
from medkit.data._crc32c import crc32c
from unit.data.tfrecord_bytes import crc32c_bit_by_bit

PUBLISHED = {
    "zeros": (bytes(32), 0x8A9136AA),
    "ones": (b"\xff" * 32, 0x62A8AB43),
    "up": (bytes(range(32)), 0x46DD794E),
    "down": (bytes(range(31, -1, -1)), 0x113FDB5C),
    "digits": (b"123456789", 0xE3069283),
}
"""The first four are from RFC 3720, appendix B.4; the last is the check value of the catalogue."""

EDGES = (64, 65, 5685, 5686, 5689, 10_008, 90_960, 90_961, 2**20, 2**20 + 4, 2**20 + 5, 3_000_001)


@pytest.fixture
def numpy_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_crc32c, "_engine", lambda: None)


def _bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


@pytest.mark.usefixtures("numpy_only")
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("repeat", [1, 3])
def test_published_values(name: str, repeat: int) -> None:
    content, value = PUBLISHED[name]

    assert crc32c(_bytes(content)) == value
    assert crc32c_bit_by_bit(content * repeat) == crc32c(_bytes(content * repeat))


@given(st.binary(max_size=300))
def test_short_content_equals_the_definition(content: bytes) -> None:
    expected = crc32c_bit_by_bit(content)

    assert _crc32c._by_table(_bytes(content)) == expected
    if len(content) >= 4:
        assert _crc32c._by_folding(_bytes(content)) == expected


@pytest.mark.usefixtures("numpy_only")
@pytest.mark.parametrize("length", EDGES)
def test_long_content_equals_google_crc32c(length: int) -> None:
    google = pytest.importorskip("google_crc32c")
    content = np.random.default_rng(length).integers(0, 256, length).astype(np.uint8)

    assert crc32c(content) == google.value(content.tobytes())


@pytest.mark.usefixtures("numpy_only")
def test_any_flipped_bit_changes_it() -> None:
    content = np.zeros(20_000, np.uint8)
    before = crc32c(content)
    for position in (0, 3, 4, 5, 9_999, 14_315, 19_999):
        content[position] ^= 16
        assert crc32c(content) != before
        content[position] ^= 16


@pytest.mark.usefixtures("numpy_only")
def test_the_content_is_left_alone() -> None:
    content = np.random.default_rng(0).integers(0, 256, 100_000).astype(np.uint8)
    before = content.copy()
    crc32c(content)

    assert np.array_equal(content, before)


def test_a_slow_google_crc32c_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    google = pytest.importorskip("google_crc32c")
    monkeypatch.setattr(google, "implementation", "python")
    _crc32c._engine.cache_clear()
    try:
        assert _crc32c._engine() is None
    finally:
        _crc32c._engine.cache_clear()
