"""The header of an NRRD file: fields by name, numbers and vectors in them.

G. Kindlmann, Definition of NRRD file format, https://teem.sourceforge.net/nrrd/format.html.
"""

import re
from io import FileIO

import numpy as np

from medkit._core.file_errors import FormatError, GeometryError, TruncatedError

NRRD_MAGIC = b"NRRD000"

_LARGEST_HEADER = 1 << 16
_VERSIONS = b"12345"
_ALIASES = {
    "centerings": "centers", "datafile": "data file", "byteskip": "byte skip",
    "lineskip": "line skip", "sampleunits": "sample units",
}  # fmt: skip
_MOST_AXES = 16


class NrrdHeader:
    """The fields of a header, each checked when it is asked for.

    Attributes:
        path: The file.
        end: Where the header ends.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with FileIO(path, "r") as file:
            head = file.read(_LARGEST_HEADER)
        if head[:7] != NRRD_MAGIC or head[7:8] not in [bytes([v]) for v in _VERSIONS]:
            raise self.wrong("magic", "NRRD0001 to NRRD0005", head[:8])
        self._fields: dict[str, str] = {}
        self.end: int = self._parse(head)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a field as it is written."""
        value = self._fields.get(key, default)
        if value is None:
            raise self.wrong(key, "there", "nothing")
        return value

    def whole(self, key: str, default: int | None, least: int, most: int) -> int:
        """Return a field that is one whole number."""
        text = self.text(key, None if default is None else str(default))
        if not re.fullmatch(r"-?[0-9]{1,12}", text) or not least <= int(text) <= most:
            raise self.wrong(key, f"a whole number in {least}..{most}", text[:80])
        return int(text)

    def sizes(self) -> tuple[int, ...]:
        """Return the extents of the axes, the fastest first."""
        axes = self.whole("dimension", None, 1, _MOST_AXES)
        words = self.text("sizes").split()
        if len(words) != axes or not all(re.fullmatch("[0-9]{1,18}", word) for word in words):
            raise self.wrong("sizes", f"{axes} whole numbers", self.text("sizes")[:80])
        if not all(int(word) for word in words):
            raise self.wrong("sizes", "positive", self.text("sizes")[:80])
        return tuple(map(int, words))

    def words(self, key: str, count: int) -> list[str] | None:
        """Return one word for each axis, or None where there is no such field."""
        if key not in self._fields:
            return None
        words = self._fields[key].split()
        if len(words) != count:
            raise self.wrong(key, f"{count} words", self._fields[key][:80])
        return words

    def vectors(self, key: str, count: int, length: int) -> list[np.ndarray | None] | None:
        """Return vectors, None for one that is ``none``; or None where there is no such field."""
        if key not in self._fields:
            return None
        text = self._fields[key]
        parts = re.findall(r"\([^()]*\)|none|[^\s()]+", text)
        if len(parts) != count:
            raise self.wrong(key, f"{count} vectors", text[:80])
        return [None if part == "none" else self._vector(key, part, length) for part in parts]

    def _vector(self, key: str, text: str, length: int) -> np.ndarray:
        if text[0] != "(" or text.count(",") != length - 1:
            raise self.wrong(key, f"vectors (a,b,...) of {length} numbers", text[:80])
        try:
            vector = np.array(text[1:-1].split(","), np.float64)
        except ValueError as error:
            raise self.wrong(key, "numbers", text[:80]) from error
        if not np.isfinite(vector).all():
            raise GeometryError("finite", path=self.path, field=key, value=text[:80])
        return vector

    def _parse(self, head: bytes) -> int:
        """Read the lines up to the first empty one, or to the end of a detached header."""
        at = head.find(b"\n") + 1
        while at:
            stop = head.find(b"\n", at)
            line = head[at : stop if stop >= 0 else len(head)].decode("latin-1").rstrip("\r")
            at = stop + 1
            if not line:
                return at or len(head)
            self._take(line)
        if len(head) < _LARGEST_HEADER and "data file" in self._fields:
            return len(head)
        rule = "a header that ends in an empty line"
        raise TruncatedError(rule, path=self.path, field="file", value=f"{len(head)} bytes")

    def _take(self, line: str) -> None:
        if line.startswith("#") or re.match(r"[^:]*:=", line):
            return  # a comment, or a key of the writer's own
        key, colon, value = line.partition(": ")
        key = _ALIASES.get(key.lower(), key.lower())
        if not colon or key in self._fields:
            raise self.wrong("line of the header", "a new 'field: value'", line[:80])
        self._fields[key] = value.strip()

    def wrong(self, field: str, rule: str, found: object) -> FormatError:
        """Return the error for a field that breaks a rule."""
        return FormatError(rule, path=self.path, field=field, value=found)
