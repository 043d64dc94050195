"""What the description of a TIFF file says of its pages: ImageJ, OME-XML or tifffile's shape.

ImageJ: TiffDecoder of https://github.com/imagej/ImageJ; OME: https://ome-model.readthedocs.io.
"""

import html
import json
import re
from typing import NamedTuple, cast

from medkit._core.file_errors import FormatError, UnsafeReferenceError

from . import _tiff_tags as tags
from ._tiff_tags import Page

_MM = {
    "mm": 1.0, "millimeter": 1.0, "cm": 10.0, "centimeter": 10.0, "m": 1000.0, "meter": 1000.0,
    "um": 1e-3, "\xb5m": 1e-3, "\u03bcm": 1e-3, "micron": 1e-3, "microns": 1e-3,
    "micrometer": 1e-3, "nm": 1e-6, "nanometer": 1e-6, "inch": 25.4, "in": 25.4,
}  # fmt: skip
_CENTIMETRE = 3
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b([^<>]*)>")
_ATTRIBUTE = re.compile(r"([\w:]+)\s*=\s*(\"[^\"<]*\"|'[^'<]*')")
_MOST = 2**31


class Stack(NamedTuple):
    """How pages make a volume."""

    order: str
    """The axes that pages run through, the slowest first: C, D or both."""
    channels: int
    planes: int
    spacing: tuple[float, float, float] | None
    """mm along d, h, w, where it is stated."""
    one_page: bool = False
    """Whether the first directory stands for all pages, one behind the other."""


def describe_stack(pages: list[Page]) -> Stack:
    """Return what the first page says of all of them."""
    first, text = pages[0], pages[0].text(tags.DESCRIPTION)
    if text.startswith("ImageJ="):
        return _imagej(first, text, len(pages))
    if "<OME" in text[:4096] or ":OME" in text[:4096]:
        return _ome(first, text, len(pages))
    spacing = _centimetres(first)
    if text.startswith("{") and '"shape"' in text:
        channels = _shaped(first, text, len(pages))
        return Stack("CD", channels, len(pages) // channels, spacing)
    return Stack("D", 1, len(pages), spacing)


def _imagej(page: Page, text: str, count: int) -> Stack:
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def whole(key: str) -> int:
        word = fields.get(key, "1")
        if not (word.isascii() and word.isdigit() and len(word) < 10 and int(word)):
            raise page.wrong(tags.DESCRIPTION, f"{key}= a whole number", word[:80])
        return int(word)

    images, channels, planes, times = map(whole, ("images", "channels", "slices", "frames"))
    if channels * planes * times != images:  # a plain stack
        channels, planes, times = 1, images, 1
    if times > 1:
        raise _time(page, times)
    one = count == 1 and images > 1
    if not one and images != count:
        raise page.wrong(tags.DESCRIPTION, f"images={count}, one for each page", images)
    scale = _unit(fields.get("unit", ""))
    x, y = page.ratio(tags.X_RESOLUTION), page.ratio(tags.Y_RESOLUTION)
    spacing = None
    if scale is not None and x and y:
        spacing = _length(page, fields.get("spacing", "1")) * scale, scale / y, scale / x
    return Stack("DC", channels, planes, spacing, one)


def _ome(page: Page, text: str, count: int) -> Stack:
    found = _PIXELS.findall(text)
    if len(found) != 1:
        raise page.wrong(tags.DESCRIPTION, "OME-XML of one image", f"{len(found)} images")
    values = {key: html.unescape(word[1:-1]) for key, word in _ATTRIBUTE.findall(found[0])}
    names = {name[1:-1] for key, name in _ATTRIBUTE.findall(text) if key == "FileName"}
    if len(names) > 1:
        raise UnsafeReferenceError(
            "in one file", path=page.file.path, field="OME-XML", value=f"{len(names)} files",
            remedy="Save the image as a single file.",
        )  # fmt: skip
    sizes = {axis: _ome_size(page, values, axis) for axis in "XYZCT"}
    samples = page.whole(tags.SAMPLES, 1)
    if sizes["T"] > 1:
        raise _time(page, sizes["T"])
    channels, planes = sizes["C"] // samples, sizes["Z"]
    width = page.whole(tags.WIDTH), page.whole(tags.LENGTH)
    if channels * samples != sizes["C"] or channels * planes != count:
        raise page.wrong(tags.DESCRIPTION, f"OME-XML of {count} pages", sizes)
    if (sizes["X"], sizes["Y"]) != width:
        raise page.wrong(tags.DESCRIPTION, f"OME-XML of pages of {width}", sizes)
    order = values.get("DimensionOrder", "XYZCT")
    if sorted(order) != sorted("XYZCT"):
        raise page.wrong(tags.DESCRIPTION, "DimensionOrder of X, Y, Z, C and T", order[:80])
    slow = "DC" if order.index("Z") > order.index("C") else "CD"
    return Stack(slow, channels, planes, _ome_spacing(page, values))


def _ome_size(page: Page, values: dict[str, str], axis: str) -> int:
    word = values.get(f"Size{axis}", "")
    if not (word.isascii() and word.isdigit() and len(word) < 10 and int(word)):
        raise page.wrong(tags.DESCRIPTION, f"Size{axis} of OME-XML, a whole number", word[:80])
    return int(word)


def _ome_spacing(page: Page, values: dict[str, str]) -> tuple[float, float, float] | None:
    lengths: list[float | None] = []
    for axis in "ZYX":
        word = values.get(f"PhysicalSize{axis}")
        scale = _unit(values.get(f"PhysicalSize{axis}Unit", "\xb5m"))
        lengths.append(None if word is None or scale is None else _length(page, word) * scale)
    depth, height, width = lengths
    if height is None or width is None:
        return None
    return (1.0 if depth is None else depth), height, width


def _shaped(page: Page, text: str, count: int) -> int:
    """Return the number of channels of an array (C, D, H, W) that tifffile wrote."""
    try:
        read: object = json.loads(text)
    except (ValueError, RecursionError):
        return 1
    shape: object = cast("dict[str, object]", read).get("shape") if isinstance(read, dict) else None
    if not isinstance(shape, list) or len(cast("list[object]", shape)) != 4:
        return 1
    channels = cast("list[object]", shape)[0]
    if page.whole(tags.SAMPLES, 1) > 1 or not isinstance(channels, int):
        return 1
    if not 1 <= channels <= count or count % channels:
        raise page.wrong(tags.DESCRIPTION, f"a shape of {count} pages", text[:80])
    return channels


def _centimetres(page: Page) -> tuple[float, float, float] | None:
    """Return a spacing stated per centimetre; per inch is how large to print, not what it shows."""
    x, y = page.ratio(tags.X_RESOLUTION), page.ratio(tags.Y_RESOLUTION)
    if page.whole(tags.RESOLUTION_UNIT, 2) != _CENTIMETRE or not x or not y:
        return None
    return 1.0, 10 / y, 10 / x


def _unit(name: str) -> float | None:
    """Return the mm of a unit of length, None for one that is none."""
    name = name.strip().replace("\\u00B5", "\xb5").replace("\\u00b5", "\xb5")
    return _MM.get(name.lower())


def _length(page: Page, word: str) -> float:
    try:
        length = abs(float(word))
    except ValueError:
        length = 0.0
    if not 0 < length < _MOST:
        raise page.wrong(tags.DESCRIPTION, "a positive length", word[:80])
    return length


def _time(page: Page, times: int) -> FormatError:
    return page.wrong(tags.DESCRIPTION, "an image of one point in time", f"{times} of them")
