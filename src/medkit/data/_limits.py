"""How much a reader may allocate."""

from dataclasses import dataclass

from medkit._core import check

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that a file's declared sizes are held against before anything is allocated.

    Args:
        max_bytes: Largest size in bytes of the voxels, as stored and as returned.
        max_header_bytes: Largest distance in bytes from the start of the file to its voxels, so
            that a forged header cannot make a reader inflate gigabytes of padding.

    Raises:
        ValueError: If a limit is not positive.

    Example:
        >>> Limits().max_bytes == 8 * 2**30
        True
    """

    max_bytes: int = 8 * GIB
    max_header_bytes: int = GIB // 4

    def __post_init__(self) -> None:
        check.integer("max_bytes", self.max_bytes, minimum=1)
        check.integer("max_header_bytes", self.max_header_bytes, minimum=1)
