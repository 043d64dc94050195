"""Laws of readers: a file's exact voxels and geometry, or an error that says why not."""

import pickle
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from medkit.data import DataError

from ._contract import Law, NotApplicable, Violation, describe
from ._reader_subject import (
    REFUSALS,
    Found,
    Handle,
    Outcome,
    ReaderSubject,
    files,
    open_files,
)

_SMALLEST_DETERMINANT = 1e-6  # of the directions, spacing divided out
_FOREIGN = b"This is a letter, and no image of anything at all.\n" * 200


def _same_volume(subject: ReaderSubject) -> None:
    with subject.good() as path:
        image = subject.read(path)
        before = subject.found(path)
        image.data.zero_()
        if not before.same(subject.found(path)):
            raise Violation("a second reading differs, after the first result was changed")
        if not before.same(subject.original):
            raise Violation("two files that make() wrote alike are read differently")


def _text_or_path(subject: ReaderSubject) -> None:
    with subject.good() as path:
        found = subject.found(str(path))
        if not found.same(subject.original):
            raise Violation("str(path) is read differently from path")


def _affine(subject: ReaderSubject) -> None:
    affine = subject.original.affine
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise Violation(f"the affine is {affine.tolist()}, no finite 4 x 4 matrix")
    if affine[3].tolist() != [0, 0, 0, 1]:
        raise Violation(f"the last row of the affine is {affine[3].tolist()}, not 0 0 0 1")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / np.where(lengths > 0, lengths, 1)
    if abs(np.linalg.det(directions)) < _SMALLEST_DETERMINANT:
        raise Violation(f"the affine {affine.tolist()} cannot be inverted")


def _left_alone(subject: ReaderSubject) -> None:
    with subject.good() as path:
        before = _states(path.parent)
        subject.found(path)
        after = _states(path.parent)
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                how = "changed" if name in before and name in after else "made or removed"
                raise Violation(f"{name} was {how} by reading")


def _no_handle(subject: ReaderSubject) -> None:
    if sys.platform != "linux":
        raise NotApplicable("open files can be listed on Linux only")
    with subject.good() as path:
        image = subject.read(path)
        held = open_files(path.parent)
        del image
        if held:
            raise Violation(f"{', '.join(sorted(held))} is still open or mapped after reading")
        for file in files(path):
            file.write_bytes(file.read_bytes()[:-1])
        outcome = subject.attempt("cut by one byte", path)
        held = open_files(path.parent)
        if held:
            raise Violation(f"{', '.join(sorted(held))} is still open after {_said(outcome)}")


def _truncated(subject: ReaderSubject) -> None:
    _none(
        (
            f"{each.damage} is read as {_shape(each.found)} of other content"
            for each in subject.truncations
            if each.found is not None and not each.found.same(subject.original)
        ),
        len(subject.truncations),
    )


def _only_data_errors(subject: ReaderSubject) -> None:
    outcomes = (*subject.truncations, *subject.edits)
    _none(
        (
            f"{each.damage}: {describe(each.error)}"
            for each in outcomes
            if each.error is not None and not isinstance(each.error, REFUSALS)
        ),
        len(outcomes),
    )


def _checked(subject: ReaderSubject) -> None:
    if subject.checksum == "none":
        raise NotApplicable("the format has no checksum")
    voxels, original = subject.checksum == "voxels", subject.original

    def wrong(found: Found) -> bool:
        alike = (found.data.shape, found.data.dtype) == (original.data.shape, original.data.dtype)
        return not found.same(original, anywhere=voxels) and (alike or not voxels)

    _none(
        (
            f"{each.damage} is read without an error, and {_difference(each.found, original)}"
            for each in subject.edits
            if each.found is not None and wrong(each.found)
        ),
        len(subject.edits),
    )


def _damaged_affine(subject: ReaderSubject) -> None:
    _none(
        (
            f"{each.damage} is read with the affine {each.found.affine.tolist()}"
            for each in subject.edits
            if each.found is not None
            and not (np.isfinite(each.found.affine).all() and np.linalg.det(each.found.affine))
        ),
        len(subject.edits),
    )


def _empty(subject: ReaderSubject) -> None:
    _refused(subject, lambda file: file.write_bytes(b""), "an empty file")


def _foreign(subject: ReaderSubject) -> None:
    _refused(subject, lambda file: file.write_bytes(_FOREIGN), "a text that is no image")


def _missing(subject: ReaderSubject) -> None:
    with TemporaryDirectory() as name:
        outcome = subject.attempt("", Path(name) / "missing" / "file")
    if outcome.found is not None or not isinstance(outcome.error, OSError | DataError):
        raise Violation(f"a file that does not exist: {_said(outcome)}, no OSError")


def _folder(subject: ReaderSubject) -> None:
    with TemporaryDirectory() as name:
        outcome = subject.attempt("", Path(name))
    if outcome.found is not None or not isinstance(outcome.error, OSError | DataError):
        raise Violation(f"an empty folder: {_said(outcome)}, no OSError or DataError")


def _names_the_file(subject: ReaderSubject) -> None:
    with subject.good() as path:
        for file in files(path):
            file.write_bytes(file.read_bytes()[:-1])
        error = subject.attempt("", path).error
        names = [path.name, *(file.name for file in files(path))]
    if error is None:
        raise NotApplicable("its last byte can be spared")
    if not any(name in str(error) for name in names):
        raise Violation(f"a file cut by one byte: {describe(error)}, without its name {path.name}")


def _region(subject: ReaderSubject) -> None:
    with subject.good() as path:
        handle = _opened(subject, path)
        whole = subject.original
        for start, size in _boxes(whole.data.shape[1:]):
            _compare(handle, whole, start, size)
        last = whole.data.shape[3]
        try:
            handle.read((0, 0, last), (1, 1, 1))
        except (ValueError, IndexError):
            return
        raise Violation(f"a box that begins at (0, 0, {last}), outside, is read without an error")


def _pickled(subject: ReaderSubject) -> None:
    with subject.good() as path:
        handle = _opened(subject, path)
        handle.read((0, 0, 0), (1, 1, 1))
        copy = pickle.loads(pickle.dumps(handle))  # noqa: S301  ours
        start, size = _boxes(subject.original.data.shape[1:])[0]
        _compare(copy, subject.original, start, size)


def _opened(subject: ReaderSubject, path: Path) -> Handle:
    if subject.open is None:
        raise NotApplicable("no region reader was given")
    return subject.open(path)


def _boxes(
    shape: tuple[int, ...],
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the whole, its first and last voxel, and boxes in the middle of it."""
    middle = tuple(n // 3 for n in shape)
    return [
        (middle, tuple(max(1, n // 2) for n in shape)),
        ((0,) * len(shape), shape),
        ((0,) * len(shape), (1,) * len(shape)),
        (tuple(n - 1 for n in shape), (1,) * len(shape)),
        ((0, *middle[1:]), (shape[0], 1, max(1, shape[2] // 2))),
    ]


def _compare(handle: Handle, whole: Found, start: tuple[int, ...], size: tuple[int, ...]) -> None:
    box = handle.read(start, size)
    cut = (slice(None), *(slice(a, a + n) for a, n in zip(start, size, strict=True)))
    affine = whole.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    found = Found(box.data.detach().cpu().numpy(), np.array(box.affine, np.float64))
    if not found.same(Found(whole.data[cut], affine), anywhere=True):
        raise Violation(f"the box at {start} of size {size} is not that part of the whole")
    if not np.allclose(found.affine, affine, rtol=1e-12, atol=1e-9):
        raise Violation(f"the affine of the box at {start} does not say where it is")


def _refused(subject: ReaderSubject, spoil: Callable[[Path], object], what: str) -> None:
    with subject.good() as path:
        for file in files(path):
            spoil(file)
        outcome = subject.attempt("", path)
    if not isinstance(outcome.error, DataError):
        raise Violation(f"{what}: {_said(outcome)}, no DataError")


def _none(findings: Iterable[str], tried: int) -> None:
    """Raise the first finding, with the number of the others."""
    found = list(findings)
    if found:
        raise Violation(f"{found[0]} ({len(found)} of {tried} damages)")


def _difference(found: Found, original: Found) -> str:
    if found.data.shape != original.data.shape or found.data.dtype != original.data.dtype:
        return f"is {_shape(found)}, not {_shape(original)}"
    wrong = int((found.data != original.data).sum())
    if wrong:
        return f"{wrong} of {found.data.size} voxels are wrong"
    return f"the affine is {found.affine.tolist()}"


def _shape(found: Found | None) -> str:
    return "nothing" if found is None else f"{found.data.shape} {found.data.dtype}"


def _said(outcome: Outcome) -> str:
    if outcome.error is not None:
        return describe(outcome.error)
    return f"is read as {_shape(outcome.found)}"


def _states(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in files(folder)
    }


LAWS: tuple[Law[ReaderSubject], ...] = (
    Law(
        "same_file_same_volume",
        "Two readings give the same volume, whatever becomes of the first.",
        _same_volume,
    ),
    Law("path_may_be_text", "A path may be text or a path.", _text_or_path),
    Law("affine_is_invertible", "The affine is a finite matrix with an inverse.", _affine),
    Law("file_is_left_alone", "Reading changes no file and makes none.", _left_alone),
    Law("no_handle_is_left", "No file is open after reading, or after an error.", _no_handle),
    Law("cut_file_is_refused", "A file cut anywhere is the original or refused.", _truncated),
    Law(
        "damage_raises_data_errors",
        "A file cut anywhere or with any byte changed raises a DataError or nothing.",
        _only_data_errors,
    ),
    Law(
        "checksum_is_checked",
        "Where a checksum covers a byte, a change of it is refused or changes nothing.",
        _checked,
    ),
    Law(
        "damaged_affine_is_refused",
        "No changed byte gives an affine that is not finite or has no inverse.",
        _damaged_affine,
    ),
    Law("empty_file_is_refused", "An empty file is a DataError.", _empty),
    Law("foreign_file_is_refused", "A file of another kind is a DataError.", _foreign),
    Law("missing_file_is_an_oserror", "A missing file is an OSError or DataError.", _missing),
    Law("empty_folder_is_refused", "An empty folder is an OSError or DataError.", _folder),
    Law("errors_name_the_file", "The message of an error names the file.", _names_the_file),
    Law("region_is_part_of_the_whole", "A region is the same part of the whole.", _region),
    Law("handle_can_be_pickled", "A handle reads the same after pickling.", _pickled),
)
