"""Compressed pixels, through the decoders of pydicom that come under permissive licences."""

import warnings
from collections.abc import Iterator, Sequence
from io import FileIO
from typing import Protocol, cast, runtime_checkable

import numpy as np

from medkit._core import optional
from medkit._core.file_errors import CodecMissingError, FormatError, LimitError, TruncatedError

from ._dicom_elements import ITEM, SEQUENCE_END, UNDEFINED
from ._dicom_header import DicomHeader
from ._dicom_syntax import EXTENDED, RLE

_RLE_RATIO = 64  # two bytes make at most 128
_END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000
_PACKAGES = {
    "pylibjpeg": "pylibjpeg with pylibjpeg-openjpeg",
    "pyjpegls": "pyjpegls",
    "pillow": "pillow",
    "gdcm": "python-gdcm",
    "pydicom": "pydicom",
}


@runtime_checkable
class _Decoder(Protocol):
    """``pydicom.pixels.Decoder`` as it is used here."""

    available_plugins: tuple[str, ...]

    def as_array(
        self, src: bytes, *, index: int, decoding_plugin: str, **options: object
    ) -> tuple[np.ndarray, object]: ...


def decode_frames(header: DicomHeader, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield decoded frames (rows, columns) or (rows, columns, 3), colours as RGB."""
    layout = header.layout
    wanted = (layout.rows, layout.columns, *((3,) if layout.samples == 3 else ()))
    stored = np.dtype(f"{layout.kind}{layout.bits_allocated // 8}")
    content = _fragments(header)
    decoder, plugin = _decoder(header)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if header.syntax.uid == RLE else "ignore")
        for number in numbers:
            try:
                frame, _ = decoder.as_array(
                    content,
                    index=number,
                    decoding_plugin=plugin,
                    rows=layout.rows,
                    columns=layout.columns,
                    samples_per_pixel=layout.samples,
                    planar_configuration=layout.planar,
                    bits_allocated=layout.bits_allocated,
                    bits_stored=layout.bits_stored,
                    pixel_representation=int(layout.kind == "i"),
                    photometric_interpretation=layout.photometric,
                    number_of_frames=len(header.frames),
                    pixel_keyword="PixelData",
                )
            except Exception as error:  # each decoder has errors of its own
                raise FormatError(
                    f"valid {header.syntax.name}",
                    path=header.path,
                    field=f"PixelData of frame {number + 1}",
                    value=" ".join(str(error).split())[:300],
                    remedy="The file is damaged; copy or download it again.",
                ) from error
            if frame.shape != wanted or frame.dtype.kind not in "ui":
                raise FormatError(
                    f"an image of {wanted}",
                    path=header.path,
                    field=f"PixelData of frame {number + 1}",
                    value=f"{frame.shape} {frame.dtype}",
                )
            yield np.array(frame.astype(stored, copy=False))


def _decoder(header: DicomHeader) -> tuple[_Decoder, str]:
    pydicom_pixels = optional.require("pydicom.pixels", extra="dicom")
    decoder = cast("_Decoder", pydicom_pixels.get_decoder(header.syntax.uid))
    for plugin in header.syntax.codecs or ():
        if plugin == "pillow" and header.layout.bits_stored > 8 and header.syntax.uid == EXTENDED:
            continue  # which it reads with 8 bits only
        if plugin in decoder.available_plugins:
            return decoder, plugin
    names = " or ".join(_PACKAGES[plugin] for plugin in header.syntax.codecs or ())
    raise CodecMissingError(
        "one that an installed package decodes",
        path=header.path,
        field="TransferSyntaxUID",
        value=f"{header.syntax.uid} ({header.syntax.name})",
        remedy=f"Install {names}.",
    )


def _fragments(header: DicomHeader) -> bytes:
    """Return the compressed pixels, every length of a fragment held against the file."""
    if header.length != UNDEFINED:
        raise FormatError(
            f"of undefined length, as the syntax is {header.syntax.name}",
            path=header.path,
            field="PixelData",
            value=f"{header.length} bytes",
        )
    with FileIO(header.path, "r") as file:
        file.seek(header.offset)
        content = file.read()
    at = 0
    while True:
        tag = int.from_bytes(content[at : at + 2], "little") << 16
        tag |= int.from_bytes(content[at + 2 : at + 4], "little")
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        start = at + 8
        if start > len(content) or (tag == ITEM and start + length > len(content)):
            raise TruncatedError(
                "complete",
                path=header.path,
                field="PixelData",
                value=f"{len(content)} bytes",
                remedy="The file is cut short; copy or download it again.",
            )
        if tag == SEQUENCE_END:
            break
        if tag != ITEM:
            raise FormatError(
                "fragments", path=header.path, field="PixelData", value=f"tag {tag:08X}"
            )
        at = start + length
    if header.syntax.uid != RLE and not content[:at].rstrip(b"\0\xff").endswith(_END_OF_IMAGE):
        raise TruncatedError(
            "a code stream that ends in FFD9",
            path=header.path,
            field="PixelData",
            value=content[max(0, at - 8) : at].hex(),
            remedy="The image was cut short when it was compressed; decoders would fill it up.",
        )
    if header.syntax.uid == RLE and header.nbytes > at * _RLE_RATIO:
        raise LimitError(
            f"at most {at * _RLE_RATIO} bytes, all that {at} bytes of RLE can hold",
            path=header.path,
            field="size of the pixels",
            value=header.nbytes,
        )
    return content[:start]
