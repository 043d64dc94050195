"""What a reader says when a file does not hold what it declares."""


class DataError(ValueError):
    """A file does not hold the voxels or the geometry that it declares.

    Readers return the file's exact voxels and geometry or raise one of the subclasses. The message
    names the file, the field, the rule it breaks, its value, and what to do.

    Args:
        rule: What the field must be, or the whole message when nothing else is given.
        path: The file.
        field: The header field, or the part of the file.
        value: What was found instead.
        remedy: What the user can do about it.

    Example:
        >>> raise DataError("in 1..7", path="a.nii", field="dim[0]", value=9, remedy="Rewrite it.")
        Traceback (most recent call last):
        medkit.data.DataError: a.nii: dim[0] must be in 1..7; got 9. Rewrite it.
    """

    def __init__(
        self, rule: str, *, path: str = "", field: str = "", value: object = None, remedy: str = ""
    ) -> None:
        self.path = path
        self.field = field
        self.value = value
        self.remedy = remedy
        text = f"{field} must be {rule}; got {value}" if field else rule
        text = f"{path}: {text}" if path else text
        super().__init__(f"{text}. {remedy}" if remedy else text)


class FormatError(DataError):
    """The file is of no known format, or breaks the rules of its format."""


class TruncatedError(DataError):
    """The file ends before the data that its header declares."""


class ChecksumError(DataError):
    """A checksum or length stored in the file disagrees with its content."""


class LimitError(DataError):
    """The file declares more data than the limits allow."""


class GeometryError(DataError):
    """The position of the voxels is missing, impossible or contradictory."""


class AmbiguousSeriesError(DataError):
    """A folder holds several images and the caller did not say which."""


class UnsafeReferenceError(DataError):
    """The file points to data outside itself."""


class CodecMissingError(DataError):
    """The data are compressed in a way that no installed package can undo."""
