"""What a reader says about a file: where the readers of data find it."""

from medkit._core.file_errors import (
    AmbiguousSeriesError,
    ChecksumError,
    CodecMissingError,
    DataError,
    FormatError,
    GeometryError,
    LimitError,
    TruncatedError,
    UnsafeReferenceError,
)

__all__ = [
    "AmbiguousSeriesError",
    "ChecksumError",
    "CodecMissingError",
    "DataError",
    "FormatError",
    "GeometryError",
    "LimitError",
    "TruncatedError",
    "UnsafeReferenceError",
]
