"""Laws of the DICOM reader over generated series and damaged files; pydicom and ITK are oracles."""

import subprocess
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medkit.data import DataError, Volume, read, read_dicom
from medkit.testing import assert_close

pydicom = pytest.importorskip("pydicom")

from unit.data import dicom_files as files  # noqa: E402
from unit.data.dicom_damage import LIMITED, damaged_files  # noqa: E402
from unit.data.dicom_files import compressed, image, pixels, save, write_series  # noqa: E402
from unit.data.volumes import world  # noqa: E402


def _content(ds: pydicom.Dataset) -> bytes:
    with TemporaryDirectory() as folder:
        return save(ds, Path(folder) / "a.dcm").read_bytes()


FILES = {
    "explicit": _content(image(1, RescaleSlope=0.5, RescaleIntercept=-3)),
    "implicit": _content(image(1, TransferSyntaxUID=files.IMPLICIT)),
    "big endian": _content(image(1, TransferSyntaxUID=files.BIG_ENDIAN)),
    "12 bits": _content(image(1, BitsStored=12, HighBit=11)),
    "8 bits": _content(image(1, pixels(1, dtype="u1"))),
}
UNCHANGED = {
    **FILES,
    "deflated": _content(image(1, TransferSyntaxUID=files.DEFLATED)),
    "RLE": _content(compressed(image(1), files.RLE)),
    "enhanced": _content(files.enhanced([(0, 0, 0), (0, 0, 2)], np.stack([pixels(0), pixels(1)]))),
}


@st.composite
def many(draw: st.DrawFn, *, for_itk: bool = False) -> list[pydicom.Dataset]:
    """Any series: orientation, step, tilt, spacing, type, scaling, syntax.

    ITK has no tilt, no single pixels, and no bits that are allocated but not stored.
    """
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    row, column = rotation.T[:2]
    step = np.cross(row, column) * draw(st.floats(0.3, 9))
    tilt = 0 if for_itk else draw(st.sampled_from([0, 0.4]))
    step = step + tilt * np.linalg.norm(step) * column
    kind = draw(st.sampled_from(["u1", "u2", "i2"] if for_itk else ["u1", "u2", "i2", "u4", "i4"]))
    bits = np.dtype(kind).itemsize * 8
    stored = bits if for_itk else draw(st.integers(bits - 6, bits))
    slope = draw(st.sampled_from([None, 1, 2] if for_itk else [None, 1, 2, 0.5, -1.25]))
    inter = draw(st.sampled_from([0, -1024] if for_itk else [0, -1024, 0.1]))
    fewest = 2 if for_itk else 1
    shape = draw(st.tuples(*[st.integers(fewest, 6)] * 2))
    syntax = draw(st.sampled_from(["EXPLICIT", "IMPLICIT", "DEFLATED"]))
    spacing = [round(x, 6) for x in generator.uniform(0.2, 3, 2)]
    origin = generator.uniform(-200, 200, 3)
    images = []
    for number in range(draw(st.integers(fewest, 5))):
        array = generator.integers(0, 2**16, shape).astype(kind)
        ds = image(
            number,
            array,
            BitsStored=stored,
            HighBit=stored - 1,
            PixelSpacing=spacing,
            ImageOrientationPatient=[f"{x:.10f}" for x in (*row, *column)],
            ImagePositionPatient=[f"{x:.8f}" for x in origin + number * step],
            InstanceNumber=int(generator.integers(99)),
            TransferSyntaxUID=getattr(files, syntax),
        )
        if slope is not None:
            ds.RescaleSlope, ds.RescaleIntercept = slope, inter
        images.append(ds)
    return images


@settings(max_examples=50)
@given(many(), st.integers(0, 99))
def test_any_series_means_what_pydicom_says(images: list[pydicom.Dataset], seed: int) -> None:
    with TemporaryDirectory() as name:
        folder = write_series(Path(name) / "s", images, seed=seed)
        v = read(folder)
        slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    slices.sort(key=lambda ds: int(ds.SOPInstanceUID.split(".")[-1]))
    assert len(slices) == v.shape[1]
    for d, ds in enumerate(slices):
        theirs = pydicom.pixels.apply_rescale(ds.pixel_array, ds).astype(float)
        assert_close(v.data[0, d].double(), theirs, rtol=1e-6, atol=1e-3)
        for h, w in ((0, 0), (v.shape[2] - 1, v.shape[3] - 1)):
            assert_close(world(v, (d, h, w)), files.place(ds, h, w), atol=1e-3)


@settings(max_examples=30)
@given(many(for_itk=True), st.integers(0, 99))
def test_a_straight_series_means_what_itk_says(images: list[pydicom.Dataset], seed: int) -> None:
    sitk = pytest.importorskip("SimpleITK")
    with TemporaryDirectory() as name:
        folder = write_series(Path(name) / "s", images, seed=seed)
        v = read(folder)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        theirs = reader.Execute()
    assert_close(v.data[0].double(), sitk.GetArrayFromImage(theirs).astype(float), atol=1e-3)
    for index in ((0, 0, 0), tuple(n - 1 for n in theirs.GetSize())):
        left, posterior, superior = theirs.TransformIndexToPhysicalPoint(index)
        assert_close(world(v, index[::-1]), [-left, -posterior, superior], atol=1e-3)


@settings(max_examples=300)
@given(st.sampled_from(sorted(FILES)), st.floats(0, 1, exclude_max=True), st.integers(0, 255))
@example("explicit", 0.0, 0)
def test_an_edited_file_means_what_pydicom_says_or_is_refused(
    name: str, where: float, value: int
) -> None:
    content = bytearray(FILES[name])
    content[int(where * len(content))] = value

    try:
        v = _read(bytes(content))
    except DataError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(pydicom.filebase.DicomBytesIO(bytes(content)), force=True)
        theirs = pydicom.pixels.apply_rescale(ds.pixel_array, ds).astype(float)
    assert_close(v.data.double(), theirs.reshape(v.shape), rtol=1e-6, atol=1e-6)
    if "no_orientation" not in [notice.code for notice in v.warnings]:
        for h, w in ((0, 0), (v.shape[2] - 1, v.shape[3] - 1)):
            ours = world(v, (0, h, w))
            assert_close(ours, files.place(ds, h, w), rtol=1e-9, atol=1e-3)


@settings(max_examples=100)
@given(st.sampled_from(sorted(UNCHANGED)), st.floats(0, 1, exclude_max=True))
def test_a_shortened_file_is_refused(name: str, where: float) -> None:
    content = UNCHANGED[name]

    cut = content[: int(where * len(content))]

    try:
        v = _read(cut)
    except DataError:
        return
    assert _same(v, _read(content))  # what follows the pixels may be missing
    assert len(cut) >= len(content) - 16


@settings(max_examples=300)
@given(st.sampled_from(sorted(UNCHANGED)), st.data())
def test_damage_raises_nothing_but_data_errors(name: str, data: st.DataObject) -> None:
    content = bytearray(UNCHANGED[name])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            v = _read(bytes(content))
        except DataError:
            return
    assert np.isfinite(v.affine).all()


@settings(max_examples=50)
@given(st.integers(0, 3), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_damaged_header_changes_no_other_slice_and_no_place(
    number: int, where: float, change: int
) -> None:
    """A slice cannot move by itself, and the other slices cannot change at all."""
    with TemporaryDirectory() as name:
        folder = write_series(Path(name) / "s", [image(n) for n in range(4)])
        original = read(folder)
        paths = sorted(folder.iterdir())
        content = bytearray(paths[number].read_bytes())
        content[int(where * (len(content) - 40))] ^= change
        paths[number].write_bytes(content)
        try:
            v = read_dicom([*paths])
        except DataError:
            return
    assert v.spatial_shape == original.spatial_shape
    corners = [(0, 0, 0), (3, 3, 4)]
    for corner in corners:
        assert_close(world(v, corner), world(original, corner), atol=0.1)
    differing = (v.data != original.data).flatten(2).any(-1).sum()
    assert differing <= 1 or "tilted" in [notice.code for notice in v.warnings]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_damage_never_costs_a_gibibyte_or_two_seconds(tmp_path: Path) -> None:
    for number, content in enumerate(damaged_files(UNCHANGED, 400, seed=0)):
        (tmp_path / f"{number:03}.dcm").write_bytes(content)

    command = [sys.executable, "-c", LIMITED, tmp_path]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)

    assert result.stdout == "survived\n", result.stderr


def _read(content: bytes) -> Volume:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        path.write_bytes(content)
        return read_dicom(path)


def _same(a: Volume, b: Volume) -> bool:
    return torch.equal(a.data, b.data) and np.array_equal(a.affine, b.affine)
