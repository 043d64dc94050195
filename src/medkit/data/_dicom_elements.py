"""The elements of a DICOM data set: lengths held against the file, depth bounded (PS3.5, 7)."""

import re
import struct
from typing import Literal, NamedTuple

from medkit._core.file_errors import DataError, FormatError, LimitError, TruncatedError

from ._dicom_tags import ATTRIBUTES, PADDING, PIXEL_TAGS

UNDEFINED = 0xFFFFFFFF
"""Length of a sequence, item or compressed image that ends with a delimiter."""
ITEM = 0xFFFEE000
SEQUENCE_END = 0xFFFEE0DD

_ITEM_END = 0xFFFEE00D
_DEEPEST = 64
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MOST_DIGITS = 64


class NeedMore(Exception):  # noqa: N818  a request, not an error
    """The bytes at hand are not enough to go on."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


class Element(NamedTuple):
    """Where the value of a data element is."""

    tag: int
    vr: bytes
    start: int
    length: int


class Elements:
    """The attributes of one data set or item that medkit uses, checked when they are asked for."""

    def __init__(self, path: str, order: Literal["<", ">"]) -> None:
        self._path = path
        self._order: Literal["<", ">"] = order
        self.values: dict[int, bytes] = {}
        self.items: dict[int, list[Elements]] = {}
        self.pixels: Element | None = None

    def first(self, tag: int) -> "Elements | None":
        """Return the first item of a sequence."""
        return next(iter(self.items.get(tag, ())), None)

    def empty(self) -> "Elements":
        """Return an item without attributes."""
        return Elements(self._path, self._order)

    def text(self, tag: int) -> str:
        """Return a string, empty if it is not there."""
        return self.values.get(tag, b"").decode("latin-1").strip(" \0")

    def decimals(
        self, tag: int, count: int | None, error: type[DataError] = FormatError
    ) -> tuple[float, ...] | None:
        """Return finite decimal numbers, None if there are none."""
        content = self.values.get(tag, b"").strip(b" \0")
        if not content:
            return None
        numbers: list[float] = []
        for part in content.split(b"\\"):
            word = part.strip(b" \0")
            number = float(word) if _is_number(word) else float("inf")
            if number in (float("inf"), float("-inf")):
                raise self.wrong(
                    tag, "finite decimal numbers", content[:80].decode("latin-1"), error
                )
            numbers.append(number)
        if count is not None and len(numbers) != count:
            raise self.wrong(tag, f"{count} numbers", content[:80].decode("latin-1"), error)
        return tuple(numbers)

    def decimal(self, tag: int, default: float, error: type[DataError] = FormatError) -> float:
        """Return one decimal number."""
        numbers = self.decimals(tag, 1, error)
        return float(default) if numbers is None else numbers[0]

    def short(self, tag: int, default: int | None = None) -> int:
        """Return an unsigned 16-bit number."""
        content = self.values.get(tag, b"")
        if not content and default is not None:
            return default
        if len(content) != 2:
            raise self.wrong(tag, "a 16-bit number", f"{len(content)} bytes")
        return int(struct.unpack(f"{self._order}H", content)[0])

    def label(self, tag: int) -> str:
        """Return any kind of value as text, to tell images apart."""
        content, vr = self.values.get(tag, b""), ATTRIBUTES[tag].vr
        layout = {b"FD": "d", b"UL": "L"}.get(vr)
        if layout is None:
            return self.text(tag)
        if len(content) != struct.calcsize(layout if layout == "d" else "<L"):
            return ""
        return f"{struct.unpack(self._order + layout, content)[0]:g}"

    def wrong(
        self,
        tag: int,
        rule: str,
        found: object,
        error: type[DataError] = FormatError,
        remedy: str = "",
    ) -> DataError:
        """Return the error that names an attribute."""
        name = ATTRIBUTES[tag].name
        return error(rule, path=self._path, field=name, value=found, remedy=remedy)


class ElementReader:
    """Reads data elements from the first bytes of a data set.

    Args:
        data: The bytes at hand, from the start of the file.
        size: Bytes that the file can have at most.
        path: The file, for messages.
        implicit: The data set leaves the value representations out.
        order: Byte order.
        complete: ``data`` is all there is.
    """

    def __init__(
        self,
        data: bytes,
        size: int,
        path: str,
        *,
        implicit: bool,
        order: Literal["<", ">"],
        complete: bool,
    ) -> None:
        self._data = data
        self._size = size
        self._path = path
        self._implicit = implicit
        self._order: Literal["<", ">"] = order
        self._complete = complete
        self._explicit_head = struct.Struct(f"{order}HH2sH").unpack_from
        self._implicit_head = struct.Struct(f"{order}HHL").unpack_from
        self._long = struct.Struct(f"{order}L").unpack_from

    def data_set(self, at: int, group: int | None = None) -> tuple[Elements, int]:
        """Read to the pixels, to the end, or to the end of a group; tell where that is."""
        return self._read(at, None, 0, group)

    def _read(
        self, at: int, stop: int | None, depth: int, group: int | None = None
    ) -> tuple[Elements, int]:
        found, last = Elements(self._path, self._order), -1
        while stop is None or at < stop:
            if depth == 0 and self._ends(at, group):
                break
            element = self._element(at, nested=depth > 0)
            tag, _, start, length = element
            if depth and stop is None and tag == _ITEM_END:
                return found, start
            if tag <= last:
                raise self._wrong(at, "tag", f"above {_name(last)}", _name(tag))
            last = tag
            if depth == 0 and tag in PIXEL_TAGS:
                found.pixels = element
                break
            if tag in ATTRIBUTES:
                at = self._keep(found, element, depth)
            elif length == UNDEFINED:
                _, at = self.sequence(element, depth + 1, keep=False)
            else:
                at = start + length
        if stop is not None and at != stop:
            raise self._wrong(at, "item", f"{stop} bytes from the start at its end", at)
        return found, at

    def _ends(self, at: int, group: int | None) -> bool:
        """Return whether a data set, or the group that was asked for, ends here."""
        if at == self._size or (self._complete and at == len(self._data)):
            return True
        if group is None:
            return False
        if at + 2 > len(self._data):
            raise self._beyond(at + 2)
        order = "little" if self._order == "<" else "big"
        return int.from_bytes(self._data[at : at + 2], order) != group

    def _element(self, at: int, *, nested: bool) -> Element:
        try:
            if self._implicit:
                group, number, length = self._implicit_head(self._data, at)
                return Element(group << 16 | number, b"", at + 8, length)
            group, number, vr, length = self._explicit_head(self._data, at)
            if vr in _SHORT:
                return Element(group << 16 | number, vr, at + 8, length)
            if vr in _LONG:
                return Element(group << 16 | number, vr, at + 12, self._long(self._data, at + 8)[0])
            if nested or group == 0xFFFE:  # some writers leave them out inside of sequences
                return Element(group << 16 | number, b"", at + 8, self._long(self._data, at + 4)[0])
        except struct.error:
            raise self._beyond(at + (8 if at + 8 > len(self._data) else 12)) from None
        raise self._wrong(at, f"VR of {_name(group << 16 | number)}", "of the standard", repr(vr))

    def _keep(self, found: Elements, element: Element, depth: int) -> int:
        tag, vr, start, length = element
        wanted = ATTRIBUTES[tag].vr
        if vr not in (wanted, b"", b"UN") and not (tag == PADDING and vr == b"SS"):
            raise self._wrong(start, f"VR of {ATTRIBUTES[tag].name}", wanted.decode(), repr(vr))
        if wanted == b"SQ":
            found.items[tag], end = self.sequence(element, depth + 1, keep=True)
            return end
        end = start + length
        if length == UNDEFINED:
            raise self._wrong(start, ATTRIBUTES[tag].name, "of a known length", "an undefined one")
        if end > len(self._data):
            raise self._beyond(end)
        found.values[tag] = self._data[start:end]
        return end

    def sequence(self, element: Element, depth: int, *, keep: bool) -> tuple[list[Elements], int]:
        """Return the items of a sequence, none unless ``keep``, and where it ends."""
        if depth > _DEEPEST:
            rule = f"at most {_DEEPEST} sequences inside of each other"
            raise LimitError(rule, path=self._path, field="data set", value="more")
        if element.vr == b"UN" and not self._implicit:  # its items leave the VR out (PS3.5, 6.2.2)
            return self._without_vr().sequence(element, depth, keep=keep)
        items: list[Elements] = []
        at, undefined = element.start, element.length == UNDEFINED
        stop = None if undefined else at + element.length
        while stop is None or at < stop:
            tag, _, start, length = self._delimiter(at)
            if undefined and tag == SEQUENCE_END:
                return items, start
            if tag != ITEM:
                raise self._wrong(at, f"content of {_name(element.tag)}", "items", _name(tag))
            if not keep and length != UNDEFINED:
                at = start + length
                continue
            end = None if length == UNDEFINED else start + length
            item, at = self._read(start, end, depth)
            items.append(item)
        if at != stop:
            raise self._wrong(at, f"length of {_name(element.tag)}", "that of its items", stop - at)
        return items, at

    def _delimiter(self, at: int) -> Element:
        try:
            group, number, length = self._implicit_head(self._data, at)
        except struct.error:
            raise self._beyond(at + 8) from None
        return Element(group << 16 | number, b"", at + 8, length)

    def _without_vr(self) -> "ElementReader":
        return ElementReader(
            self._data,
            self._size,
            self._path,
            implicit=True,
            order=self._order,
            complete=self._complete,
        )

    def _beyond(self, count: int) -> Exception:
        if self._complete or count > self._size:
            return TruncatedError(
                f"complete to byte {count}",
                path=self._path,
                field="data set",
                value=f"{min(self._size, max(len(self._data), 0))} bytes",
                remedy="The file is cut short or a length in it is wrong.",
            )
        return NeedMore(count)

    def _wrong(self, at: int, field: str, rule: str, found: object) -> FormatError:
        return FormatError(rule, path=self._path, field=field, value=f"{found} before byte {at}")


def _is_number(word: bytes) -> bool:
    return len(word) <= _MOST_DIGITS and _NUMBER.fullmatch(word) is not None


def _name(tag: int) -> str:
    known = ATTRIBUTES.get(tag)
    return known.name if known else f"({tag >> 16 & 0xFFFF:04X},{tag & 0xFFFF:04X})"
