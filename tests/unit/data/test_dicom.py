"""DICOM: choosing an image, real files beside pydicom and ITK, and what reading leaves alone."""

import copy
import pickle
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from medkit._core import optional
from medkit.data import (
    AmbiguousSeriesError,
    CodecMissingError,
    DataError,
    FormatError,
    LimitError,
    Limits,
    TruncatedError,
    read,
    read_dicom,
    scan,
)
from medkit.testing import assert_close

pydicom = pytest.importorskip("pydicom")

from unit.data import dicom_files as files  # noqa: E402
from unit.data.dicom_corpus import STACK, series  # noqa: E402
from unit.data.dicom_files import compressed, image, pixels, save, write_series  # noqa: E402
from unit.data.volumes import world  # noqa: E402

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
REAL = {
    path.relative_to(SHIPPED).as_posix(): path
    for path in (*sorted(SHIPPED.glob("*.dcm")), *sorted((SHIPPED / "dicomdirtests").rglob("*")))
    if path.is_file()
}
SERIES = ("98892001/CT5N", "98892003/MR700", "77654033/CT2")


def _readable() -> dict[str, Path]:
    found = {}
    for name, path in REAL.items():
        try:
            read_dicom(path)
        except DataError:
            continue
        found[name] = path
    return found


READABLE = _readable()


def test_most_real_images_are_read() -> None:
    assert len(READABLE) >= 70


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_real_files_are_read_as_pydicom_reads_them(name: str) -> None:
    ds = pydicom.dcmread(READABLE[name], force=True)
    v = read(READABLE[name]) if ds.preamble else read_dicom(READABLE[name])

    theirs = pydicom.pixels.apply_modality_lut(ds.pixel_array, ds).astype(float)
    theirs = theirs * float(ds.get("DoseGridScaling", 1))
    theirs = np.moveaxis(theirs, -1, 0) if ds.SamplesPerPixel == 3 else theirs
    assert_close(v.data.double(), theirs.reshape(v.shape), rtol=1e-6)
    if "ImagePositionPatient" in ds:
        assert_close(world(v, (0, 1, 2)), files.place(ds, 1, 2), atol=1e-3)


@pytest.mark.parametrize("name", SERIES)
def test_real_series_are_read_as_simpleitk_reads_them(name: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    folder = SHIPPED / "dicomdirtests" / name
    for found in scan(folder):
        if any(notice.code == "geometry" for notice in found.problems):
            continue
        v = read_dicom(folder, series=found.id)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(found.files)
        theirs = reader.Execute()

        assert_close(v.data[0].double(), sitk.GetArrayFromImage(theirs).astype(float))
        size = theirs.GetSize()
        for index in ((0, 0, 0), tuple(n - 1 for n in size)):
            left, posterior, superior = theirs.TransformIndexToPhysicalPoint(index)
            ours = world(v, (index[2], index[1], index[0]))
            assert_close(ours, [-left, -posterior, superior], atol=1e-3)


def test_the_real_folders_are_listed_without_an_error() -> None:
    found = scan(SHIPPED / "dicomdirtests")

    images = [one for one in found if one.id]
    damaged = [one for one in found if not one.id]
    assert {one.modality for one in images} == {"CR", "CT", "MR"}
    assert len({one.id for one in images}) == len(images)
    assert all(one.problems[0].code == "damaged" for one in damaged)
    assert all("TINY_ALPHA" in one.files[0] for one in damaged)  # which have no pixels


def test_an_image_is_chosen_by_the_name_that_scan_gives(tmp_path: Path) -> None:
    other = series(3, SeriesInstanceUID="1.2.77", SeriesDescription="Abdomen")
    scout = image(9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(tmp_path, [*series(), *other, scout])

    listed = scan(tmp_path)

    assert [one.id for one in listed] == ["1.2.2#1", "1.2.2#2", "1.2.77"]
    assert [one.spatial_shape[0] for one in listed] == [4, 1, 3]
    assert [notice.code for notice in listed[1].problems] == ["localizer"]
    assert torch.equal(read_dicom(tmp_path, series="1.2.2#1").data, torch.as_tensor(STACK).int())
    assert read_dicom(tmp_path, series="1.2.77").shape == (1, 3, 4, 5)
    assert read_dicom(listed[2].files).shape == (1, 3, 4, 5)
    with pytest.raises(AmbiguousSeriesError, match=r"got 2: 1\.2\.2#1 CT Thorax 4 x 4 x 5; 1"):
        read_dicom(tmp_path, series="1.2.2")
    with pytest.raises(AmbiguousSeriesError, match=r"series must be one of: 1.*got '7'"):
        read_dicom(tmp_path, series="7")


def test_time_points_are_read_one_by_one(tmp_path: Path) -> None:
    times = [
        image(n, pixels(n) + t, TemporalPositionIdentifier=t, EchoTime=n % 2, SOPInstanceUID="1.3")
        for t in (1, 2)
        for n in range(4)
    ]
    write_series(tmp_path, times)

    listed = scan(tmp_path)

    assert [one.description[-28:] for one in listed] == [
        f"TemporalPositionIdentifier={t}" for t in (1, 2)
    ]
    for t, one in enumerate(listed, 1):
        assert torch.equal(
            read_dicom(tmp_path, series=one.id).data, torch.as_tensor(STACK).int() + t
        )


def test_a_damaged_file_is_listed_and_stops_reading(tmp_path: Path) -> None:
    write_series(tmp_path, series())
    path = tmp_path / "004.dcm"
    path.write_bytes((tmp_path / "000.dcm").read_bytes()[:300])

    *images, damaged = scan(tmp_path)

    assert [one.spatial_shape for one in images] == [(4, 4, 5)]
    assert damaged.files == (str(path),)
    assert damaged.problems[0].code == "damaged"
    with pytest.raises(TruncatedError, match=r"004\.dcm"):
        read_dicom(tmp_path)


@pytest.mark.parametrize("content", [b"", bytes(200), b"a letter"])
def test_a_slice_at_the_end_that_is_destroyed_does_not_vanish(
    content: bytes, tmp_path: Path
) -> None:
    write_series(tmp_path, [image(number) for number in range(4)])
    (tmp_path / "004.dcm").write_bytes(content)

    with pytest.raises(DataError, match=r"004\.dcm: "):
        read_dicom(tmp_path)
    (tmp_path / "004.dcm").rename(tmp_path / "004.txt")
    assert read_dicom(tmp_path).shape == (1, 4, 4, 5)


def test_scan_says_why_an_image_cannot_be_read(tmp_path: Path) -> None:
    six = series(6)
    write_series(tmp_path, [*six[:2], *six[3:]])

    (found,) = scan(tmp_path)

    assert found.problems[0].code == "geometry"
    assert "1 slice missing" in found.problems[0].message
    assert found.spacing is None


def test_scan_reads_no_pixels(tmp_path: Path) -> None:
    write_series(tmp_path, series())
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])

    assert scan(tmp_path)[0].spatial_shape == (4, 4, 5)
    with pytest.raises(TruncatedError):
        read(tmp_path)


def test_surplus_pixels_pass_without_verification(tmp_path: Path) -> None:
    ds = image(0)
    ds.PixelData += b"more"
    path = save(ds, tmp_path / "a.dcm")

    with pytest.raises(FormatError, match="PixelData must be 40 bytes"):
        read(path)
    assert np.array_equal(read(path, verify=False).data[0, 0], pixels(0))


def test_the_description_is_decoded(tmp_path: Path) -> None:
    save(image(0, SpecificCharacterSet="ISO_IR 192", SeriesDescription="Schädel"), tmp_path / "a")

    assert scan(tmp_path)[0].description == "Schädel"


def test_native_pixels_need_no_pydicom(tmp_path: Path, monkeypatch) -> None:
    save(image(0), tmp_path / "native.dcm")
    packed = save(compressed(image(1), files.RLE), tmp_path / "packed.dcm")

    def missing(name: str, *, extra: str) -> None:
        raise ImportError(f"pip install 'medkit[{extra}]'")

    monkeypatch.setattr(optional, "require", missing)
    assert read(tmp_path / "native.dcm").shape == (1, 1, 4, 5)
    with pytest.raises(ImportError, match=r"medkit\[dicom\]"):
        read(packed)


def test_a_decoder_under_the_gpl_is_never_used(tmp_path: Path, monkeypatch) -> None:
    path = SHIPPED / "SC_rgb_jpeg_dcmtk.dcm"
    decoder = pydicom.pixels.decoders.base.Decoder
    monkeypatch.setattr(decoder, "available_plugins", ("pylibjpeg",))  # with pylibjpeg-libjpeg

    with pytest.raises(CodecMissingError, match="Install pillow or python-gdcm"):
        read(path)


def test_limits_hold_before_anything_is_allocated(tmp_path: Path) -> None:
    write_series(tmp_path, series())

    assert read(tmp_path, limits=Limits(max_bytes=320)).data.nbytes == 320
    with pytest.raises(LimitError, match=r"319 bytes; got 320 \(4 planes of 4 x 5\)"):
        read(tmp_path, limits=Limits(max_bytes=319))
    large = image(0)
    large.add_new(0x00090010, "LO", "PRIVATE")
    large.add_new(0x00091001, "UN", bytes(20000))
    path = save(large, tmp_path / "large")
    with pytest.raises(LimitError, match="data before the pixels must be at most 9000 bytes"):
        read(path, limits=Limits(max_header_bytes=9000))


def test_reading_needs_little_more_memory_than_the_voxels(tmp_path: Path) -> None:
    shape = (256, 256)
    stack = [image(n, pixels(n, shape), BitsStored=12, HighBit=11) for n in range(40)]
    write_series(tmp_path, stack)
    read(tmp_path)
    tracemalloc.start()

    v = read(tmp_path)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * v.data.nbytes


@pytest.mark.filterwarnings("error")
def test_no_setting_of_pydicom_is_changed_and_no_warning_leaks(tmp_path: Path) -> None:
    write_series(tmp_path, [compressed(ds, files.RLE) for ds in series()])

    def settings() -> dict[str, object]:
        values = vars(pydicom.config).items()
        return {key: copy.copy(v) for key, v in values if isinstance(v, bool | int | str | None)}

    before, filters = settings(), list(warnings.filters)
    read(tmp_path)
    for path in REAL.values():
        try:
            read_dicom(path)
        except DataError:
            continue

    assert settings() == before
    assert warnings.filters == filters


def test_a_volume_survives_pickling(tmp_path: Path) -> None:
    write_series(tmp_path, series())
    v = read(tmp_path)
    again = pickle.loads(pickle.dumps(v))

    assert torch.equal(again.data, v.data)
    assert np.array_equal(again.affine, v.affine)


def test_ordinary_errors_stay_ordinary(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_dicom(tmp_path / "nothing.dcm")
    with pytest.raises(NotADirectoryError):
        scan(save(image(0), tmp_path / "a.dcm"))
    (tmp_path / "a.txt").write_text("no image" * 99)
    with pytest.raises(FormatError, match=r"magic must be b'DICM' at byte 128"):
        read_dicom(tmp_path / "a.txt")
