"""A DICOM file from its start to its pixels: preamble, meta information, data set (PS3.10)."""

import os
import zlib
from io import FileIO
from typing import NamedTuple

from medkit._core.file_errors import FormatError, LimitError, TruncatedError

from ._dicom_elements import ElementReader, Elements, NeedMore
from ._dicom_syntax import DEFLATED, EXPLICIT, IMPLICIT, SYNTAXES, Syntax
from ._dicom_tags import MEDIA_CLASS, SOP_CLASS, TRANSFER_SYNTAX
from ._limits import Limits

MAGIC = b"DICM"
PREAMBLE = 128

_FIRST_READ = 1 << 13
_GROWTH = 8
_DEFLATE_RATIO = 1032
_META = 2
_FIRST_GROUPS = (2, 8)


class ParsedFile(NamedTuple):
    """The attributes of a file, and how its data set is encoded."""

    path: str
    size: int
    """Upper bound of the bytes of the data set, counted from the start of the file."""
    syntax: Syntax
    sop_class: str
    elements: Elements
    deflated_from: int
    """Where the deflated data set begins; positions in it count from there."""


def is_dicom(head: bytes) -> bool:
    """Return whether the first bytes of a file are a preamble and DICM."""
    return head[PREAMBLE : PREAMBLE + 4] == MAGIC


def may_be_dicom(head: bytes) -> bool:
    """Return whether a file can be DICOM, perhaps of the kind without a preamble."""
    return is_dicom(head) or _bare(head)


def parse_file(path: str, limits: Limits) -> ParsedFile:
    """Read the attributes of a file; its pixels are not touched."""
    with FileIO(path, "r") as file:
        size, count = os.fstat(file.fileno()).st_size, _FIRST_READ
        while True:
            file.seek(0)
            head = _read(file, count)
            try:
                return _parse(head, size, path, count)
            except NeedMore as more:
                if more.count > limits.max_header_bytes:
                    raise _too_long(path, more.count, limits) from None
                count = max(_GROWTH * count, more.count)


def inflate(content: bytes, count: int, path: str) -> tuple[bytes, bool]:
    """Return up to ``count`` bytes of a raw deflate stream, and whether they are all."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = stream.decompress(content, count)
    except zlib.error as error:
        raise FormatError(
            "a valid deflate stream", path=path, field="deflated data set", value=error
        ) from error
    return plain, stream.eof and not stream.unconsumed_tail


def _parse(head: bytes, size: int, path: str, count: int) -> ParsedFile:
    start, complete = _start(head, path), len(head) == size or len(head) < count
    meta, end = Elements(path, "<"), start
    if head[start : start + 2] == _META.to_bytes(2, "little"):
        reader = ElementReader(head, size, path, implicit=False, order="<", complete=complete)
        meta, end = reader.data_set(start, _META)
    syntax = _syntax(meta, head, end, path)
    deflated_from = end if syntax.uid == DEFLATED else -1
    if syntax.uid == DEFLATED:
        with FileIO(path, "r") as file:
            file.seek(end)
            packed = _read(file, min(size, count))
        head, complete = inflate(packed, count, path)
        if len(packed) < min(size, count) and not complete and len(head) < count:
            raise TruncatedError("complete", path=path, field="deflated data set", value="its end")
        size, end = _DEFLATE_RATIO * size, 0
    reader = ElementReader(
        head, size, path, implicit=syntax.implicit, order=syntax.order, complete=complete
    )
    elements, _ = reader.data_set(end)
    sop_class = elements.text(SOP_CLASS) or meta.text(MEDIA_CLASS)
    return ParsedFile(path, size, syntax, sop_class, elements, deflated_from)


def _start(head: bytes, path: str) -> int:
    if is_dicom(head):
        return PREAMBLE + 4
    if _bare(head):
        return 0
    raise FormatError(
        f"{MAGIC!r} at byte {PREAMBLE}",
        path=path,
        field="magic",
        value=repr(head[PREAMBLE : PREAMBLE + 4]),
        remedy="This is no DICOM file; a compressed one must be unpacked first.",
    )


def _syntax(meta: Elements, head: bytes, at: int, path: str) -> Syntax:
    uid = meta.text(TRANSFER_SYNTAX)
    if not uid and not meta.values:  # files from before part 10 existed
        uid = EXPLICIT if head[at + 4 : at + 6].isalpha() else IMPLICIT
    if uid not in SYNTAXES:
        raise FormatError(
            "one that medkit knows",
            path=path,
            field="TransferSyntaxUID",
            value=uid[:80] or "none",
            remedy="Convert the file to explicit little endian, e.g. with dcmconv or gdcmconv.",
        )
    return SYNTAXES[uid]


def _bare(head: bytes) -> bool:
    return (
        len(head) > 8
        and int.from_bytes(head[:2], "little") in _FIRST_GROUPS
        and head[2] < 0x20
        and head[3] == 0
        and (head[4:6] in (b"UL", b"CS", b"UI", b"OB") or head[6:8] == b"\0\0")
    )


def _read(file: FileIO, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = file.read(count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _too_long(path: str, count: int, limits: Limits) -> LimitError:
    return LimitError(
        f"at most {limits.max_header_bytes} bytes",
        path=path,
        field="data before the pixels",
        value=count,
        remedy="Pass limits=Limits(max_header_bytes=...) if you trust the file.",
    )
