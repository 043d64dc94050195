"""TIFF stacks mean what tifffile says, ours are read by it, odd and damaged ones are refused."""

import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

tifffile = pytest.importorskip("tifffile")
Image = pytest.importorskip("PIL.Image")

from medkit._core import optional  # noqa: E402
from medkit.data import (  # noqa: E402
    ChecksumError,
    CodecMissingError,
    DataError,
    FormatError,
    LimitError,
    Limits,
    TruncatedError,
    UnsafeReferenceError,
    Volume,
    _tiff,
    read,
    read_tiff,
    write,
    write_tiff,
)
from medkit.testing import assert_close  # noqa: E402
from unit.data.picture_files import COLOURS, PIXELS, palette, pillow_stack, saved, tiff  # noqa: E402
from unit.data.volumes import volume  # noqa: E402

KINDS = ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "f2", "f4", "f8", "c8", "?"]
WIDER = {"u2": "i4", "u4": "i8"}
STORED: list[dict[str, object]] = [
    {},
    {"byteorder": ">"},
    {"bigtiff": True},
    {"compression": "zlib"},
    {"compression": "zlib", "byteorder": ">", "rowsperstrip": 5},
    {"compression": "zlib", "tile": (16, 16)},
    {"tile": (16, 32), "byteorder": ">"},
]


def _saved(content: bytes, folder: Path) -> Path:
    (folder / "a.tif").write_bytes(content)
    return folder / "a.tif"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", STORED, ids=str)
def test_what_tifffile_writes_is_read(kind: str, options, tmp_path: Path) -> None:
    array = (PIXELS > 99) if kind == "?" else PIXELS.astype(kind)
    if kind == "?" and ("tile" in options or "compression" in options):
        pytest.skip("tifffile writes bits as strips alone")
    path = _saved(tiff(array, **options), tmp_path)
    v = read(path)

    assert v.data.numpy().dtype == WIDER.get(kind, kind)
    assert np.array_equal(v.data[0].numpy(), tifffile.imread(path))


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_differences_of_neighbours_are_summed(kind: str, order: str, tile, tmp_path: Path) -> None:
    options = {"compression": "zlib", "predictor": 2, "byteorder": order, "tile": tile}
    path = _saved(tiff(PIXELS.astype(kind) * 3, **options), tmp_path)

    assert np.array_equal(read(path).data[0].numpy(), tifffile.imread(path))
    colours = _saved(tiff(COLOURS, photometric="rgb", **options), tmp_path)
    assert np.array_equal(read(colours).data[:, 0].numpy(), np.moveaxis(COLOURS, -1, 0))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_differences_of_the_bytes_of_fractions_are_summed(kind: str, order, tmp_path: Path) -> None:
    """Encoded here from the words of the technical note; tifffile needs another package for it."""
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(kind)
    rows = []
    for row in values.astype(np.dtype(kind).newbyteorder(">")):
        by_significance = np.frombuffer(row.tobytes(), "u1").reshape(7, -1).T.ravel()
        rows.append(np.diff(by_significance, prepend=np.uint8(0)).astype("u1"))
    packed = zlib.compress(np.concatenate(rows).tobytes())
    content = _one_page(
        order, packed, {256: 7, 257: 5, 258: 8 * values.itemsize, 259: 8, 317: 3, 339: 3}
    )

    assert np.array_equal(read(_saved(content, tmp_path)).data[0, 0].numpy(), values)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", None])
@pytest.mark.parametrize("shape", [(4, 12, 17), (2, 300, 411), (1, 1, 1)])
def test_what_pillow_writes_is_read(compression, shape, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 3, shape).astype("u1")
    content = pillow_stack(array, **({"compression": compression} if compression else {}))

    assert np.array_equal(read(_saved(content, tmp_path)).data[0].numpy(), array)


def test_lzw_with_differences_is_read(tmp_path: Path) -> None:
    content = saved(Image.fromarray(COLOURS), "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    v = read(_saved(content, tmp_path))

    assert np.array_equal(v.data[:, 0].numpy(), np.moveaxis(COLOURS, -1, 0))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_samples_are_channels(planar: str, tmp_path: Path) -> None:
    stack = np.stack([COLOURS, COLOURS + 1])
    array = stack if planar == "contig" else np.moveaxis(stack, -1, 1)
    v = read(_saved(tiff(array, photometric="rgb", planarconfig=planar), tmp_path))

    assert np.array_equal(v.data.numpy(), np.moveaxis(stack, -1, 0))


FOUR = np.random.default_rng(2).integers(0, 250, (2, 3, 12, 17)).astype("u1")


@pytest.mark.parametrize(
    ("options", "expected", "spacing"),
    [
        (
            {"imagej": True, "resolution": (2, 4), "metadata": {
                "axes": "ZCYX", "spacing": 3, "unit": "mm"}},
            FOUR.swapaxes(0, 1), (3, 0.25, 0.5),
        ),
        (
            {"imagej": True, "resolution": (2, 4), "metadata": {
                "axes": "ZCYX", "spacing": 3, "unit": "um"}},
            FOUR.swapaxes(0, 1), (0.003, 0.25e-3, 0.5e-3),
        ),
        (
            {"imagej": True, "resolution": (2, 4), "metadata": {"axes": "ZCYX", "spacing": 3}},
            FOUR.swapaxes(0, 1), (1, 1, 1),
        ),
        (
            {"ome": True, "metadata": {
                "axes": "CZYX", "PhysicalSizeX": 500, "PhysicalSizeY": 0.25,
                "PhysicalSizeYUnit": "mm", "PhysicalSizeZ": 0.2, "PhysicalSizeZUnit": "cm"}},
            FOUR, (2, 0.25, 0.5),
        ),
        ({"ome": True, "metadata": {"axes": "ZCYX"}}, FOUR.swapaxes(0, 1), (1, 1, 1)),
        ({"photometric": "minisblack", "planarconfig": None}, FOUR, (1, 1, 1)),
        (
            {"photometric": "minisblack", "resolution": (20, 40), "resolutionunit": 3},
            FOUR, (1, 0.25, 0.5),
        ),
        (
            {"photometric": "minisblack", "resolution": (20, 40), "resolutionunit": 2},
            FOUR, (1, 1, 1),
        ),
    ],
)  # fmt: skip
def test_what_descriptions_state(options, expected, spacing, tmp_path: Path) -> None:
    v = read(_saved(tiff(FOUR, **options), tmp_path))

    assert np.array_equal(v.data.numpy(), expected)
    assert_close(list(v.spacing), list(map(float, spacing)), rtol=1e-9)
    assert [notice.code for notice in v.warnings] == ["no_orientation"]


def test_pages_of_imagej_without_directories_are_read(tmp_path: Path) -> None:
    content = tiff(PIXELS, imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(_saved(content, tmp_path)) as file:
        assert len(file.pages) == 5
        second = file.pages[1].offset
    alone = content.replace(struct.pack("<I", second), bytes(4), 1)
    v = read(_saved(alone, tmp_path))

    assert np.array_equal(v.data[0].numpy(), PIXELS)
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), PIXELS)


def test_notices_tell_what_other_programs_might_do(tmp_path: Path) -> None:
    def codes(content: bytes) -> list[str]:
        return [notice.code for notice in read(_saved(content, tmp_path)).warnings[1:]]

    assert codes(tiff(PIXELS, photometric="miniswhite")) == ["white_is_zero"]
    assert codes(saved(palette(), "TIFF")) == ["palette"]
    assert np.array_equal(read(tmp_path / "a.tif").data[0, 0].numpy(), PIXELS[0] % 4)
    assert codes(tiff(PIXELS, extratags=[(274, 3, 1, 6, True)])) == ["turned"]
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        writer.write(PIXELS[0])
        writer.write(PIXELS[0, ::2, ::2], subfiletype=1)
    assert codes((tmp_path / "b.tif").read_bytes()) == ["reduced_pages"]
    assert read(tmp_path / "b.tif").shape == (1, 1, 12, 17)


# written by us


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "i4", "f4", "f8", "c8"])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_tifffile_reads_what_is_written(
    kind: str, compress: bool, channels: int, tmp_path: Path
) -> None:
    v = volume(2, channels=channels)
    v = v.like(torch.as_tensor(v.data.numpy().astype(kind)))
    write_tiff(v, tmp_path / "a.tif", compress=compress)

    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_ome
        (series,) = file.series
        assert series.axes == ("CZYX" if channels > 1 else "ZYX")
        assert series.dtype == kind
        assert np.array_equal(series.asarray(), v.data.numpy().squeeze())
        x, y, z = _physical_sizes(file.ome_metadata)
    assert_close([z, y, x], list(v.spacing), rtol=1e-12)
    again = read(tmp_path / "a.tif")
    assert torch.equal(again.data, v.data)
    assert_close(list(again.spacing), list(v.spacing), rtol=1e-12)


def _physical_sizes(text: str) -> list[float]:
    sizes = tifffile.xml2dict(text)["OME"]["Image"]["Pixels"]
    assert {sizes[f"PhysicalSize{axis}Unit"] for axis in "XYZ"} == {"mm"}
    return [sizes[f"PhysicalSize{axis}"] for axis in "XYZ"]


def test_pillow_reads_what_is_written(tmp_path: Path) -> None:
    v = volume(dtype=torch.uint8)
    write(v, tmp_path / "a.tiff")
    with Image.open(tmp_path / "a.tiff") as image:
        for plane in range(3):
            image.seek(plane)
            assert np.array_equal(np.array(image), v.data[0, plane].numpy())


def test_large_stacks_are_bigtiff(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(_tiff, "_BIG", 100)
    v = volume(channels=2, dtype=torch.uint8)
    write_tiff(v, tmp_path / "a.tif")

    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II+\0"
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), v.data.numpy())
    assert torch.equal(read(tmp_path / "a.tif").data, v.data)


def test_types_without_a_name_are_refused_and_bits_are_widened(tmp_path: Path) -> None:
    v = volume()
    write_tiff(v.like(v.data > 9), tmp_path / "a.tif")
    assert torch.equal(read(tmp_path / "a.tif").data, (v.data > 9).to(torch.uint8))
    with pytest.raises(ValueError, match=r"data must be one of int8, .*; got int64"):
        write_tiff(v.like(v.data.long()), tmp_path / "a.tif")


# odd files


def _one_page(
    order: str, pixels: bytes, fields: dict[int, int], *, after: int = 0, text: bytes = b""
) -> bytes:
    """A file of one strip with tags of one number each."""
    at = 8 + len(pixels) + len(pixels) % 2
    tags = {256: 5, 257: 4, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 279: len(pixels), **fields}
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())]
    if text:
        where = at + 2 + 12 * (len(tags) + 1) + 4
        entries.append(struct.pack(f"{order}HHII", 270, 2, len(text), where))
        entries.sort(key=lambda entry: struct.unpack(f"{order}H", entry[:2]))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries)
    body = pixels + bytes(len(pixels) % 2)
    return head + body + directory + struct.pack(f"{order}I", after) + text


def page(pixels: bytes = bytes(range(20)), /, text: bytes = b"", after: int = 0, **fields: int):
    return _one_page(
        "<", pixels, {int(k[1:]): v for k, v in fields.items()}, text=text, after=after
    )


PACKED = zlib.compress(bytes(range(20)))
IMAGEJ = b"ImageJ=1.5\nimages=%d\nslices=%d\n"
OME = '<OME><Image><Pixels SizeX="5" SizeY="4" SizeZ="1" SizeC="1" SizeT="1" {} /></Image></OME>'


def ome(more: str = "", **sizes: int) -> bytes:
    text = OME.format(more)
    for axis, size in sizes.items():
        text = text.replace(f'Size{axis}="{5 if axis == "X" else 1}"', f'Size{axis}="{size}"')
    return text.encode()


BAD: dict[str, tuple[bytes, type[DataError], str]] = {
    "cut in the head": (page()[:7], TruncatedError, "at least 8 bytes"),
    "no page": (b"II*\0" + bytes(8), FormatError, "at least one"),
    "directory outside": (b"II*\0\xff\xff\xff\x7f", TruncatedError, "at least"),
    "loop": (page(after=28), FormatError, "without a loop"),
    "strip outside": (page(t273=4000), TruncatedError, "can hold"),
    "strip too short": (page(t279=19), TruncatedError, "can hold"),
    "strip too long": (page(bytes(30)), FormatError, "30 bytes for 20"),
    "no strip": (page().replace(struct.pack("<HH", 273, 4), struct.pack("<HH", 280, 4)),
                 FormatError, "tag 273"),
    "huge": (page(t256=2**20, t257=2**20), LimitError, "at most"),
    "4 GB": (page(t256=2**16, t257=2**15), TruncatedError, "can hold"),
    "4 GB of deflate": (page(PACKED, t259=8, t256=2**16, t257=2**15), TruncatedError, "can hold"),
    "width 0": (page(t256=0), FormatError, "with pixels"),
    "3 bits": (page(t258=3), FormatError, "whole bytes"),
    "24 bits": (page(t258=24), FormatError, "whole bytes"),
    "8 bits of float": (page(t258=8, t339=3), FormatError, "a type of numbers"),
    "128 bits of float": (page(t258=128, t339=3), FormatError, "a type of numbers"),
    "fill order": (page(t266=2), FormatError, "tag 266"),
    "planar 3": (page(t284=3), FormatError, "1 or 2"),
    "predictor of fractions": (page(t317=3), FormatError, "tag 317"),
    "predictor 9": (page(t317=9), FormatError, "tag 317"),
    "YCbCr": (page(t262=6), FormatError, "grey, RGB or a palette"),
    "JPEG": (page(t259=7), CodecMissingError, "JPEG"),
    "compression 99": (page(t259=99), CodecMissingError, "99"),
    "Zstandard": (page(t259=50000), CodecMissingError, "Zstandard"),
    "deflate cut": (page(PACKED[:-5], t259=8), FormatError, "the end of the stream"),
    "deflate checksum": (
        page(PACKED[:-1] + b"\x7f", t259=8), ChecksumError, "incorrect data check"
    ),
    "deflate of less": (page(zlib.compress(bytes(19)), t259=8), TruncatedError, "20 bytes"),
    "deflate of more": (page(zlib.compress(bytes(99)), t259=8), FormatError, "more than declared"),
    "no deflate": (page(bytes(20), t259=8), FormatError, "unknown compression method"),
    "PackBits of less": (page(b"\x03abcd", t259=32773), TruncatedError, "20 bytes"),
    "PackBits of more": (page(b"\x81a", t259=32773), FormatError, "more than declared"),
    "LZW": (page(bytes(20), t259=5), FormatError, "damage"),
    "tiles of terabytes": (
        page(t322=2**20, t323=2**20, t324=8, t325=20), FormatError, "of the size of the page"
    ),
    "reduced alone": (page(t254=1), FormatError, "full size"),
    "ImageJ of time": (
        page(text=b"ImageJ=1\nimages=9\nframes=9\n"), FormatError, "one point in time"
    ),
    "ImageJ of one page": (page(text=IMAGEJ % (3, 3)), FormatError, "tags among them"),
    "ImageJ of letters": (page(text=b"ImageJ=1\nimages=x\n"), FormatError, "images="),
    "OME of more pages": (page(text=ome(Z=3)), FormatError, "1 pages"),
    "OME of time": (page(text=ome(T=3)), FormatError, "one point in time"),
    "OME of another width": (page(text=ome(X=6)), FormatError, "pages of (5, 4)"),
    "OME of no size": (page(text=ome(Z=0)), FormatError, "SizeZ"),
    "OME of two images": (page(text=ome() + ome()), FormatError, "one image"),
    "OME in two files": (
        page(text=ome() + b'<UUID FileName="a"/><UUID FileName="b"/>'),
        UnsafeReferenceError, "2 files",
    ),
    "OME order": (page(text=ome('DimensionOrder="XYZ"')), FormatError, "DimensionOrder"),
    "OME length": (
        page(text=ome('PhysicalSizeX="x" PhysicalSizeY="1"')), FormatError, "positive length"
    ),
    "shape": (page(text=b'{"shape": [3, 1, 4, 5]}'), FormatError, "a shape of 1 pages"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content, error, words = BAD[name]
    path = _saved(content, tmp_path)
    start = time.perf_counter()

    with pytest.raises(DataError) as caught:
        read(path)

    assert type(caught.value) is error, caught.value
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert time.perf_counter() - start < 1


def test_the_good_page_of_these_tests_is_read(tmp_path: Path) -> None:
    for content in (page(), page(PACKED, t259=8), page(text=ome()), page(text=IMAGEJ % (1, 1))):
        data = read(_saved(content, tmp_path)).data
        assert data.ravel().tolist() == list(range(20))


@pytest.mark.parametrize("spacing", ["x", "0", "nan", "1e99"])
def test_a_length_that_is_none_is_refused(spacing: str, tmp_path: Path) -> None:
    description = f"ImageJ=1\nimages=5\nslices=5\nunit=mm\nspacing={spacing}\n"
    content = tiff(PIXELS, description=description, metadata=None, resolution=(2, 2))

    with pytest.raises(FormatError, match="positive length"):
        read(_saved(content, tmp_path))


def test_two_planes_in_the_same_bytes_are_refused(tmp_path: Path) -> None:
    write_tiff(volume(), tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        first, second = (p.tags[tag].valueoffset for p in file.pages[:2] for tag in (273,))
    content[second : second + 4] = content[first : first + 4]

    with pytest.raises(FormatError, match="bytes of their own"):
        read(_saved(bytes(content), tmp_path))


def test_pages_that_differ_are_no_volume(tmp_path: Path) -> None:
    for other in (PIXELS[0, :6], PIXELS[0].astype("u2")):
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            writer.write(PIXELS[0])
            writer.write(other)
        with pytest.raises(FormatError, match=r"page 1 must be \(1, 12, 17\) uint8, comp.* page 0"):
            read_tiff(tmp_path / "a.tif")


def test_a_lost_compression_is_noticed(tmp_path: Path) -> None:
    """A page whose stream is as long as its pixels would else be read as it is stored."""
    write_tiff(volume(), tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tag = file.pages[1].tags[259].offset
    content[tag + 1] ^= 0x20
    with pytest.raises(FormatError, match="compression 1"):
        read(_saved(bytes(content), tmp_path))


def test_limits_hold(tmp_path: Path) -> None:
    path = _saved(tiff(PIXELS.astype("u2")), tmp_path)
    assert read(path, limits=Limits(max_bytes=4 * PIXELS.size)).data.dtype == torch.int32
    with pytest.raises(LimitError, match="at most"):
        read(path, limits=Limits(max_bytes=4 * PIXELS.size - 1))
    with pytest.raises(LimitError, match="max_header_bytes"):
        read(path, limits=Limits(max_header_bytes=100))


def test_lzw_alone_needs_pillow(tmp_path: Path, monkeypatch) -> None:
    lzw = _saved(pillow_stack(PIXELS, compression="tiff_lzw"), tmp_path)

    def missing(name: str, *, extra: str) -> None:
        raise ImportError(f"pip install 'medkit[{extra}]'")

    monkeypatch.setattr(optional, "require", missing)
    with pytest.raises(ImportError, match=r"medkit\[io\]"):
        read(lzw)
    assert read(_saved(tiff(PIXELS, compression="zlib"), tmp_path)).shape == (1, 5, 12, 17)


def test_affine_holds_the_spacing_alone(tmp_path: Path) -> None:
    v = volume()
    write(v, tmp_path / "a.tif")
    again = read(tmp_path / "a.tif")

    assert again.axcodes == "SAR"
    assert again.warnings[0].code == "no_orientation"
    assert isinstance(again, Volume)
