"""Transfer syntaxes: how a data set and its pixels are encoded (PS3.5, annex A)."""

from typing import Literal, NamedTuple

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"

_JPEG = "1.2.840.10008.1.2.4."
EXTENDED = f"{_JPEG}51"


class Syntax(NamedTuple):
    """One transfer syntax."""

    uid: str
    name: str
    implicit: bool = False
    order: Literal["<", ">"] = "<"
    codecs: tuple[str, ...] | None = None
    """Decoders of pydicom under permissive licences, the fastest first; None for native pixels.

    Never the plugin ``pylibjpeg`` for JPEG and JPEG-LS: there it is pylibjpeg-libjpeg, under GPL.
    """

    @property
    def compressed(self) -> bool:
        """Whether pixels are in compressed fragments."""
        return self.codecs is not None


SYNTAXES = {
    syntax.uid: syntax
    for syntax in (
        Syntax(IMPLICIT, "implicit little endian", implicit=True),
        Syntax(EXPLICIT, "explicit little endian"),
        Syntax(DEFLATED, "deflated explicit little endian"),
        Syntax(BIG_ENDIAN, "explicit big endian", order=">"),
        Syntax(RLE, "RLE", codecs=("pydicom", "gdcm")),
        Syntax(f"{_JPEG}50", "JPEG Baseline", codecs=("pillow", "gdcm")),
        Syntax(EXTENDED, "JPEG Extended", codecs=("gdcm", "pillow")),
        Syntax(f"{_JPEG}57", "JPEG Lossless", codecs=("gdcm",)),
        Syntax(f"{_JPEG}70", "JPEG Lossless SV1", codecs=("gdcm",)),
        Syntax(f"{_JPEG}80", "JPEG-LS Lossless", codecs=("pyjpegls", "gdcm")),
        Syntax(f"{_JPEG}81", "JPEG-LS Near Lossless", codecs=("pyjpegls", "gdcm")),
        Syntax(f"{_JPEG}90", "JPEG 2000 Lossless", codecs=("pylibjpeg", "gdcm", "pillow")),
        Syntax(f"{_JPEG}91", "JPEG 2000", codecs=("pylibjpeg", "gdcm", "pillow")),
        Syntax(f"{_JPEG}201", "HTJ2K Lossless", codecs=("pylibjpeg",)),
        Syntax(f"{_JPEG}202", "HTJ2K Lossless RPCL", codecs=("pylibjpeg",)),
        Syntax(f"{_JPEG}203", "HTJ2K", codecs=("pylibjpeg",)),
    )
}
