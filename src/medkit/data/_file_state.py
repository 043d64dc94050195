"""Whether a file is still the one that was looked at."""

import os

from medkit._core.file_errors import FormatError


def file_state(file: str | int) -> tuple[int, int]:
    """Return size and time of change of a path or of an open descriptor."""
    status = os.stat(file)  # noqa: PTH116  a path or a descriptor
    return status.st_size, status.st_mtime_ns


def changed(path: str, found: str = "another size or time of change") -> FormatError:
    """Return the error for a file that was written anew in the meantime."""
    return FormatError(
        "as it was when it was opened",
        path=path,
        field="file",
        value=found,
        remedy="It was written anew; open it again, or build the dataset again.",
    )
