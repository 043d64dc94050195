"""One process at a time, by a lock on a file."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where nobody waits
    fcntl = None


@contextmanager
def exclusive(path: str | os.PathLike[str]) -> Generator[None]:
    """Wait until no other process is inside this block with the same path.

    The lock is on a hidden file beside ``path``, which stays. It ends with the process, however
    that ends. Where the system has no such locks, nobody waits.
    """
    target = Path(os.path.realpath(path))
    with target.with_name(f".{target.name}.lock").open("wb") as file:
        if fcntl is not None:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield
