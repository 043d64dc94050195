"""The contract of readers: every law, held against one reader."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import get_args

from medkit._core import check

from ._contract import Report, examine
from ._reader_laws import LAWS
from ._reader_subject import Checksum, Handle, Placed, ReaderSubject


def reader_laws() -> dict[str, str]:
    """Return the laws of readers: each name with what it says, in the order they are tried.

    Example:
        >>> reader_laws()["cut_file_is_refused"]
        'A file cut anywhere is the original or refused.'
    """
    return {law.name: law.sentence for law in LAWS}


def reader_report(
    reader: Callable[[Path], Placed],
    make: Callable[[Path], Path],
    *,
    open: Callable[[Path], Handle] | None = None,
    checksum: Checksum = "none",
    max_damages: int = 2000,
    laws: Collection[str] | None = None,
    excuses: Mapping[str, str] | None = None,
) -> Report:
    """Hold a reader to the laws of ``check_reader`` and return the verdicts, without raising.

    Use it to look at a reader that is not yours: each verdict says what is wrong, and where.

    Args:
        reader: As in ``check_reader``.
        make: As in ``check_reader``.
        open: As in ``check_reader``.
        checksum: As in ``check_reader``.
        max_damages: As in ``check_reader``.
        laws: As in ``check_reader``.
        excuses: As in ``check_reader``.

    Returns:
        One verdict for each law.

    Raises:
        ValueError: If ``laws`` or ``excuses`` hold a name that does not exist.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import Volume
        >>> def make(folder):
        ...     np.zeros(24, np.uint8).tofile(folder / "a.raw")
        ...     return folder / "a.raw"
        >>> def reader(path):
        ...     content = np.fromfile(path, np.uint8)
        ...     return Volume(torch.as_tensor(content)[None, None, None], np.eye(4))
        >>> print(reader_report(reader, make, laws=["cut_file_is_refused"]).violations.popitem()[1])
        a.raw cut to 1 bytes is read as (1, 1, 1, 1) uint8 of other content (23 of 24 damages)
    """
    check.one_of("checksum", checksum, get_args(Checksum))
    check.integer("max_damages", max_damages, minimum=1)
    subject = ReaderSubject(reader, make, open, checksum, max_damages)
    name: str = getattr(reader, "__name__", type(reader).__name__)
    return examine(name, LAWS, subject, chosen=laws, excuses=excuses)


def check_reader(
    reader: Callable[[Path], Placed],
    make: Callable[[Path], Path],
    *,
    open: Callable[[Path], Handle] | None = None,
    checksum: Checksum = "none",
    max_damages: int = 2000,
    laws: Collection[str] | None = None,
    excuses: Mapping[str, str] | None = None,
) -> Report:
    """Raise unless a reader gives a file's exact voxels and geometry, or says why not.

    A good file is cut at every length and changed at every byte: what the reader makes of it is
    the original or a ``DataError``, and never another exception. Keep the file to some hundred
    bytes, so that every place can be tried.

    Args:
        reader: Takes a path; returns a ``Volume``, or an object with ``data`` (C, D, H, W) and
            ``affine``.
        make: Takes an empty folder, writes into it a good file, or a folder of files that make one
            image, and returns the path. Two calls write the same image.
        open: Takes a path; returns a handle whose ``read(start, size)`` gives the box of voxels at
            ``start`` (d, h, w), as ``medkit.data.open`` does. None holds the reader to no law of
            regions.
        checksum: What the checksums of the format cover: ``"none"``, the ``"voxels"`` alone, or
            the whole ``"file"``. No change of what is covered may go unnoticed.
        max_damages: Largest number of cuts, and of changed bytes, to try, evenly spread.
        laws: Names of the laws to try; None tries all.
        excuses: Reasons, by law, for laws that are known not to hold. They are tried all the same:
            an excuse for a law that holds is a violation.

    Returns:
        One verdict for each law.

    Raises:
        ContractError: If a law is violated; it is an ``AssertionError`` that lists all of them.
        ValueError: If an option is out of range, or ``laws`` or ``excuses`` hold a name that does
            not exist.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import Volume, read_npz, write_npz
        >>> def make(folder):
        ...     write_npz(Volume(torch.arange(24).reshape(1, 2, 3, 4), np.eye(4)), folder / "a")
        ...     return folder / "a"
        >>> check_reader(read_npz, make, checksum="file", max_damages=200).violations
        {}
    """
    report = reader_report(
        reader,
        make,
        open=open,
        checksum=checksum,
        max_damages=max_damages,
        laws=laws,
        excuses=excuses,
    )
    report.raise_if_violated()
    return report
