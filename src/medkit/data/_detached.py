"""Voxels in a file of their own, named by a header, and never outside of the header's folder."""

from pathlib import Path

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
