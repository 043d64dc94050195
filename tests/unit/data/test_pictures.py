"""PNG and JPEG pictures mean what Pillow and imageio say; damaged ones are refused."""

import struct
import time
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("tifffile")

from medkit.data import (  # noqa: E402
    ChecksumError,
    CodecMissingError,
    DataError,
    FormatError,
    LimitError,
    Limits,
    TruncatedError,
    read,
    read_jpeg,
    read_png,
)
from unit.data.picture_files import COLOURS, PIXELS, palette, picture, saved  # noqa: E402


def _saved(content: bytes, folder: Path, name: str = "a") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _planes(array: np.ndarray) -> np.ndarray:
    """Pixels (H, W) or (H, W, C) as (C, 1, H, W)."""
    array = array if array.ndim == 3 else array[..., None]
    return np.moveaxis(array, -1, 0)[:, None]


RNG = np.random.default_rng(3)
STORED: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "grey": (PIXELS[0], PIXELS[0]),
    "16 bits": (PIXELS[0].astype("u2") * 257 + 1, PIXELS[0].astype("u2") * 257 + 1),
    "1 bit": (PIXELS[0] > 99, (PIXELS[0] > 99).astype("u1")),
    **{
        name: (array, array)
        for name, array in (
            ("grey and alpha", RNG.integers(0, 256, (6, 7, 2)).astype("u1")),
            ("RGB", COLOURS),
            ("RGBA", RNG.integers(0, 256, (6, 7, 4)).astype("u1")),
        )
    },
}


@pytest.mark.parametrize("name", STORED)
def test_what_pillow_writes_is_read(name: str, tmp_path: Path) -> None:
    array, expected = STORED[name]
    v = read(_saved(picture(array), tmp_path))

    assert np.array_equal(v.data.numpy(), _planes(expected))
    assert v.data.dtype == (torch.int32 if expected.dtype == "u2" else torch.uint8)
    assert [notice.code for notice in v.warnings] == ["no_orientation"]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_palette_gives_its_indices(bits: int, tmp_path: Path) -> None:
    v = read(_saved(saved(palette(), bits=bits), tmp_path))

    assert np.array_equal(v.data[0, 0].numpy(), PIXELS[0] % 4)
    assert [notice.code for notice in v.warnings] == ["no_orientation", "palette"]


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def header(width: int = 4, height: int = 3, depth: int = 8, colour: int = 0, *more: int) -> bytes:
    return chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, *(more or (0,) * 3))
    )


END = chunk(b"IEND", b"")
ROWS = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(range(4)) for _ in range(3))))


@pytest.mark.parametrize(("depth", "rows"), [(1, b"\x50"), (2, b"\x1b"), (4, b"\x01\x23")])
def test_grey_of_few_bits_is_as_stored(depth: int, rows: bytes, tmp_path: Path) -> None:
    content = png(header(4, 1, depth), chunk(b"IDAT", zlib.compress(b"\0" + rows)), END)
    expected = [0, 1, 0, 1] if depth == 1 else [0, 1, 2, 3]

    assert read(_saved(content, tmp_path)).data.ravel().tolist() == expected


SAMPLES = sorted(
    str(entry.name)
    for entry in (resources.files("skimage") / "data").iterdir()
    if entry.name.endswith((".png", ".jpg", ".tif"))
) if pytest.importorskip("skimage") else []  # fmt: skip
TOO_DEEP = "chessboard_RGB.png"  # 16 bits per colour


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_of_scikit_image_are_read_as_imageio_reads_them(name: str) -> None:
    imageio = pytest.importorskip("imageio.v3")
    path = resources.files("skimage") / "data" / name
    if name == TOO_DEEP:
        with pytest.raises(CodecMissingError, match="bits of a colour"):
            read(path)
        return
    theirs = np.asarray(imageio.imread(path))
    v = read(path)

    if name.startswith("multipage"):
        expected = theirs.reshape(2, -1, *theirs.shape[-2:]).swapaxes(0, 1)
    else:
        expected = _planes(theirs)
    assert np.array_equal(v.data.numpy(), expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30, "subsampling": 0}])
@pytest.mark.parametrize("array", [PIXELS[0], COLOURS], ids=["grey", "colours"])
def test_jpeg_is_read_as_pillow_reads_it(options, array, tmp_path: Path) -> None:
    path = _saved(picture(array, "JPEG", **options), tmp_path)
    v = read(path)

    with Image.open(path) as image:
        assert np.array_equal(v.data.numpy(), _planes(np.array(image)))
    assert [notice.code for notice in v.warnings] == ["no_orientation", "lossy"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_not_turned_but_says_so(kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = _saved(picture(COLOURS, kind, exif=exif), tmp_path)

    assert read(path).shape == (3, 1, 12, 17)
    assert "turned" in [notice.code for notice in read(path).warnings]
    exif[274] = 1
    path = _saved(picture(COLOURS, kind, exif=exif), tmp_path)
    assert "turned" not in [notice.code for notice in read(path).warnings]


def test_transparent_values_are_told(tmp_path: Path) -> None:
    v = read(_saved(picture(PIXELS[0], transparency=3), tmp_path))

    assert np.array_equal(v.data[0, 0].numpy(), PIXELS[0])
    assert [notice.code for notice in v.warnings] == ["no_orientation", "transparent"]


GOOD = png(header(), ROWS, END)
JPEG = picture(PIXELS[0], "JPEG")
FRAME = JPEG.index(b"\xff\xc0")


def _jpeg(at: int, value: int) -> bytes:
    return JPEG[: FRAME + at] + bytes([value]) + JPEG[FRAME + at + 1 :]


BAD: dict[str, tuple[bytes, type[DataError], str]] = {
    "cut": (GOOD[:-1], TruncatedError, "IEND"),
    "no end": (png(header(), ROWS), TruncatedError, "IEND"),
    "more": (GOOD + b"x", FormatError, "last voxel"),
    "CRC": (GOOD[:20] + b"\1" + GOOD[21:], ChecksumError, "CRC-32 of the chunk IHDR"),
    "CRC of what is not used": (
        png(header(), chunk(b"tEXt", b"a\0b")[:-1] + b"x", ROWS, END), ChecksumError, "tEXt"
    ),
    "no header": (png(ROWS, END), FormatError, "first chunk"),
    "two headers": (png(header(), header(), ROWS, END), FormatError, "no other"),
    "no pixels": (png(header(), END), TruncatedError, "can hold"),
    "few pixels": (
        png(header(), chunk(b"IDAT", zlib.compress(bytes(9))), END), FormatError, "damage"
    ),
    "no deflate": (png(header(), chunk(b"IDAT", bytes(30)), END), FormatError, "damage"),
    "filter 9": (
        png(header(), chunk(b"IDAT", zlib.compress(b"\x09abcd" * 3)), END), FormatError, "damage"
    ),
    "width 0": (png(header(0), ROWS, END), FormatError, "positive"),
    "depth 3": (png(header(4, 3, 3), ROWS, END), FormatError, "IHDR"),
    "colour 5": (png(header(4, 3, 8, 5), ROWS, END), FormatError, "IHDR"),
    "16 bits of RGB": (png(header(4, 3, 16, 2), ROWS, END), CodecMissingError, "16"),
    "animation": (png(header(), chunk(b"acTL", bytes(8)), ROWS, END), FormatError, "animation"),
    "huge": (png(header(2**31 - 1, 2**31 - 1), ROWS, END), LimitError, "at most"),
    "bomb": (png(header(60_000, 60_000), ROWS, END), TruncatedError, "can hold"),
    "JPEG cut": (JPEG[:-1], TruncatedError, "the end of its picture"),
    "JPEG cut in the pixels": (JPEG[:-20], TruncatedError, "the end of its picture"),
    "JPEG without its end": (JPEG[:-2] + b"\0\0", TruncatedError, "the end of its picture"),
    "JPEG with more": (JPEG + b"x", FormatError, "more behind it"),
    "JPEG without a frame": (b"\xff\xd8\xff\xd9", FormatError, "picture"),
    "JPEG of two frames": (
        JPEG[:FRAME] + JPEG[FRAME : FRAME + 13] + JPEG[FRAME:], FormatError, "there once"
    ),
    "JPEG of 12 bits": (_jpeg(4, 12), CodecMissingError, "12 bits"),
    "lossless JPEG": (_jpeg(1, 0xC3), CodecMissingError, "process 0xc3"),
    "JPEG of 2 colours": (_jpeg(9, 2), FormatError, "1 or 3 colours"),
    "JPEG of no height": (
        JPEG[: FRAME + 5] + bytes(2) + JPEG[FRAME + 7 :], FormatError, "with pixels"
    ),
    "JPEG of 4 GB": (
        JPEG[: FRAME + 5] + b"\xff" * 4 + JPEG[FRAME + 9 :], TruncatedError, "can hold"
    ),
    "JPEG without a marker": (b"\xff\xd8\xff\xe0\0\2ab", FormatError, "a marker"),
    "CMYK": (
        saved(Image.fromarray(COLOURS).convert("CMYK"), "JPEG"), FormatError, "1 or 3 colours"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_picture_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content, error, words = BAD[name]
    path = _saved(content, tmp_path)
    start = time.perf_counter()

    with pytest.raises(DataError) as caught:
        read(path)

    assert type(caught.value) is error, caught.value
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert time.perf_counter() - start < 1


def test_verification_can_be_left_out(tmp_path: Path) -> None:
    text = chunk(b"tEXt", b"a\0b")
    wrong = _saved(png(header(), text, ROWS, END) + b"more", tmp_path)

    assert read_png(wrong, verify=False).data[0, 0, 0].tolist() == [0, 1, 2, 3]
    assert read_jpeg(_saved(JPEG + b"more", tmp_path), verify=False).shape == (1, 1, 12, 17)


def test_limits_are_ours_and_not_those_of_pillow(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for content in (picture(PIXELS[0]), JPEG):
        path = _saved(content, tmp_path)
        assert read(path, limits=Limits(max_bytes=12 * 17 + 600)).shape == (1, 1, 12, 17)
        with pytest.raises(LimitError, match="at most 203 bytes"):
            read(path, limits=Limits(max_bytes=203))
