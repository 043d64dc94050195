"""A reader, good files to read, and every way to damage them."""

import functools
import gc
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from medkit.data import DataError

from ._contract import Violation

Checksum = Literal["none", "voxels", "file"]
REFUSALS = (DataError, FileNotFoundError)
"""What a reader may raise: the second where a header names another file that is not there."""

_MASKS = (0x01, 0x80, 0xFF, 0x20)  # bits turned over; the last changes the case of a letter


@runtime_checkable
@runtime_checkable
class Placed(Protocol):
    """What a reader returns: a ``Volume``, or anything with its two parts."""

    @property
    def data(self) -> Tensor: ...
    @property
    def affine(self) -> ArrayLike: ...


@runtime_checkable
@runtime_checkable
class Handle(Protocol):
    """What a region reader returns: a ``LazyVolume``, or anything that reads boxes as one."""

    def read(self, start: Sequence[int], size: Sequence[int], /) -> Placed:
        """Return a box of voxels (d, h, w) of all channels."""
        ...


class Found(NamedTuple):
    """What a reader made of a file, kept apart from the reader's own memory."""

    data: np.ndarray
    affine: np.ndarray

    def same(self, other: "Found", *, anywhere: bool = False) -> bool:
        """Return whether another image has the same voxels, type and, unless anywhere, place."""
        return self.data.dtype == other.data.dtype and all(
            _equal(mine, theirs)
            for mine, theirs in zip(self, other, strict=True)
            if not (anywhere and mine is self.affine)
        )


class Outcome(NamedTuple):
    """What came of a damaged file."""

    damage: str
    found: Found | None
    error: Exception | None


@dataclass(frozen=True)
class ReaderSubject:
    """A reader, and how to make what it reads."""

    read: Callable[[Path], Placed]
    make: Callable[[Path], Path]
    open: Callable[[Path], Handle] | None
    checksum: Checksum
    max_damages: int

    def found(self, path: str | Path) -> Found:
        """Return what the reader makes of a file."""
        image = self.read(cast("Path", path))
        data, affine = getattr(image, "data", None), getattr(image, "affine", None)
        if not isinstance(data, Tensor) or affine is None:
            raise Violation(f"returns {type(image).__name__}, without a tensor `data` and `affine`")
        if data.ndim != 4:
            raise Violation(f"returns voxels of shape {tuple(data.shape)}, not (C, D, H, W)")
        return Found(data.detach().cpu().numpy().copy(), np.array(affine, np.float64))

    @contextmanager
    def good(self) -> Generator[Path]:
        """Give a good file, or a folder of files, that vanishes with the block."""
        with TemporaryDirectory() as name:
            path = Path(self.make(Path(name)))
            if not path.exists():
                raise Violation(f"make() returned {path.name!r}, which does not exist")
            yield path

    @functools.cached_property
    def original(self) -> Found:
        """What a good file holds."""
        with self.good() as path:
            return self.found(path)

    @functools.cached_property
    def truncations(self) -> tuple[Outcome, ...]:
        """What came of files cut short, at every length."""
        return self._outcomes(_cuts)

    @functools.cached_property
    def edits(self) -> tuple[Outcome, ...]:
        """What came of files in which one byte was changed, at every place."""
        return self._outcomes(_edits)

    def attempt(self, damage: str, path: Path) -> Outcome:
        """Read a file and return what came of it; nothing is raised."""
        try:
            return Outcome(damage, self.found(path), None)
        except Exception as error:  # noqa: BLE001  whatever it is, it is what came of it
            return Outcome(damage, None, error.with_traceback(None))

    def _outcomes(self, damages: Callable[[bytes], "_Damages"]) -> tuple[Outcome, ...]:
        outcomes: list[Outcome] = []
        with self.good() as path:
            for file in files(path):
                content = file.read_bytes()
                found = damages(content)
                step = max(1, -(-found.places // max(1, self.max_damages // len(files(path)))))
                for number in range(0, found.places, step):
                    damage, damaged = found.make(number)
                    _overwrite(file, damaged)
                    outcomes.append(self.attempt(f"{file.name} {damage}", path))
                _overwrite(file, content)
        return tuple(outcomes)


def files(path: Path) -> list[Path]:
    """Return a file, or the files of a folder."""
    return [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())


def open_files(folder: Path) -> set[str]:
    """Return the files of a folder that this process holds open or mapped into memory."""
    gc.collect()
    held = {
        target
        for number in os.listdir("/proc/self/fd")  # noqa: PTH208  names, which vanish under way
        if (target := _target(number))
    }
    held |= {
        line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()
    }
    inside = f"{folder.resolve()}{os.sep}"
    return {Path(name).name for name in held if name.startswith(inside)}


def _overwrite(file: Path, content: bytes) -> None:
    """Replace the content; cutting a file to nothing first makes some systems wait for the disk."""
    with file.open("r+b") as stream:
        stream.write(content)
        stream.truncate()


class _Damages(NamedTuple):
    places: int
    make: Callable[[int], tuple[str, bytes]]


def _cuts(content: bytes) -> _Damages:
    def cut(at: int) -> tuple[str, bytes]:
        return f"cut to {at} bytes", content[:at]

    return _Damages(len(content), cut)


def _edits(content: bytes) -> _Damages:
    def edit(number: int) -> tuple[str, bytes]:
        at, which = divmod(number, len(_MASKS))
        value = content[at] ^ _MASKS[(which + at) % len(_MASKS)]
        changed = content[:at] + bytes([value]) + content[at + 1 :]
        return f"with byte {at} changed from {content[at]:#04x} to {value:#04x}", changed

    return _Damages(len(content) * len(_MASKS), edit)


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(first, second, equal_nan=first.dtype.kind in "fc")


def _target(number: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
    except OSError:  # closed in the meantime
        return ""
