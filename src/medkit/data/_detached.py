"""Voxels in a file of their own, named by a header, and never outside of the header's folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from medkit._core.atomic import atomic_file
from medkit._core.file_errors import UnsafeReferenceError


def beside(header: str, name: str) -> str:
    """Return the path of a data file that a header names; links are followed and held too."""
    folder = Path(header).parent.resolve()
    target = (folder / name).resolve() if "\0" not in name else folder.parent
    if Path(name).is_absolute() or "\\" in name or not target.is_relative_to(folder):
        raise UnsafeReferenceError(
            "inside the folder of the header",
            path=header,
            field="data file",
            value=repr(name[:200]),
            remedy="Move the data beside the header and name it there.",
        )
    return str(target)


def write_beside(
    path: str | os.PathLike[str],
    ending: str,
    write: Callable[[BinaryIO], object],
    head: Callable[[str], bytes],
) -> None:
    """Write voxels into a file beside a header, then the header, which takes its name.

    An older header goes first: there is never one whose voxels are those of another.
    """
    header = Path(os.path.realpath(path))
    data = header.with_suffix(ending)
    header.unlink(missing_ok=True)
    with atomic_file(data) as file:
        write(file)
    with atomic_file(header) as file:
        file.write(head(data.name))
