"""Every reader of medkit is held to the laws of readers; each law finds a reader that breaks it."""

import io
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import medkit.data as mdata
from medkit.data import DataError, FormatError, Volume
from medkit.testing import check_reader, reader_laws, reader_report
from unit.data.volumes import affine, volume
from unit.losses.refusals import refuses

V = volume(2, channels=2)


class Case(NamedTuple):
    """A reader, how to make its files, and what the laws need to know of them."""

    reader: Callable[[Path], Volume]
    make: Callable[[Path], Path]
    checksum: str = "none"
    by_region: bool = False
    excuses: dict[str, str] | None = None


def written(suffix: str, **options: object) -> Callable[[Path], Path]:
    """Write V in the format of a name, with options of its writer."""
    kind = {".nii.gz": "nifti", ".nii": "nifti", ".h5": "hdf5", ".tif": "tiff"}.get(
        suffix, suffix[1:]
    )
    writer = getattr(mdata, f"write_{kind}")

    def make(folder: Path) -> Path:
        writer(V, folder / f"a{suffix}", **options)
        return folder / f"a{suffix}"

    return make


def npy(folder: Path) -> Path:
    np.save(folder / "a.npy", V.data.numpy())
    return folder / "a.npy"


def dicom_file(folder: Path) -> Path:
    files = _dicom_files()
    return files.save(files.image(1, RescaleSlope=0.5), folder / "a.dcm")


def dicom_series(folder: Path) -> Path:
    files = _dicom_files()
    return files.write_series(folder / "series", [files.image(number) for number in range(3)])


def dicom_seg(folder: Path) -> Path:
    files = _dicom_files()
    from unit.data.seg_files import seg

    masks = np.random.default_rng(0).random((4, 4, 5)) < 0.5
    masks[2] &= ~masks[0]
    frames = [(1, 0.0), (1, 2.5), (2, 0.0), (2, 5.0)]
    return files.save(seg(frames, masks, between=2.5), folder / "a.dcm")


def labels_of(path: Path) -> Volume:
    return mdata.read_dicom_seg(path).labels


def made(group: str, kind: str) -> Callable[[Path], Path]:
    """A file of those that tifffile or Pillow write."""

    def make(folder: Path) -> Path:
        pytest.importorskip("tifffile")
        from unit.data import picture_files

        (folder / "a").write_bytes(getattr(picture_files, group)[kind]())
        return folder / "a"

    return make


def zarr_array(folder: Path) -> Path:
    """An array of two chunks, each with a checksum."""
    zarr = pytest.importorskip("zarr")
    codecs = [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]
    v = V.data.numpy()
    array = zarr.create_array(
        folder / "a", shape=v.shape, chunks=(1, 3, 4, 5), dtype=v.dtype, compressors=codecs
    )
    array[...] = v
    return folder / "a"


def _dicom_files():
    pytest.importorskip("pydicom")
    from unit.data import dicom_files

    return dicom_files


CASES: dict[str, list[Case]] = {
    "read": [
        Case(mdata.read, written(".nii.gz"), "file"),
        Case(mdata.read, dicom_series),
    ],
    "read_dicom": [
        Case(mdata.read_dicom, dicom_file),
        Case(mdata.read_dicom, dicom_series),
    ],
    "read_dicom_seg": [Case(labels_of, dicom_seg)],
    "read_hdf5": [Case(mdata.read_hdf5, written(".h5"), "file", by_region=True)],
    "read_jpeg": [
        Case(mdata.read_jpeg, made("JPEGS", "RGB")),
        Case(mdata.read_jpeg, made("JPEGS", "progressive")),
    ],
    "read_mha": [
        Case(mdata.read_mha, written(".mha"), "voxels"),
        Case(mdata.read_mha, written(".mha", compress=False)),
    ],
    "read_nifti": [
        Case(mdata.read_nifti, written(".nii.gz"), "file"),
        Case(mdata.read_nifti, written(".nii")),
    ],
    "read_npy": [Case(mdata.read_npy, npy, by_region=True)],
    "read_npz": [
        Case(mdata.read_npz, written(".npz"), "file"),
        Case(mdata.read_npz, written(".npz", compress=True), "file"),
    ],
    "read_nrrd": [
        Case(mdata.read_nrrd, written(".nrrd"), "voxels"),
        Case(mdata.read_nrrd, written(".nrrd", compress=False)),
    ],
    "read_png": [
        Case(mdata.read_png, made("PNGS", "RGB"), "file"),
        Case(mdata.read_png, made("PNGS", "palette"), "file"),
    ],
    "read_tiff": [
        Case(mdata.read_tiff, written(".tif"), "voxels"),
        Case(mdata.read_tiff, made("TIFFS", "OME")),
        Case(mdata.read_tiff, made("TIFFS", "LZW")),
    ],
    "read_zarr": [Case(mdata.read_zarr, zarr_array, "voxels", by_region=True)],
}
OTHERS = {"read_tfrecord"}
"""Readers of records, not of one volume; tests/property/test_tfrecord.py damages their files."""
READERS = {n for n in mdata.__all__ if n == "read" or n.startswith("read_")} - OTHERS


def test_every_reader_has_a_case() -> None:
    assert set(CASES) == READERS


@pytest.mark.parametrize(
    ("name", "number"), [(name, n) for name, cases in CASES.items() for n in range(len(cases))]
)
@pytest.mark.usefixtures("unhooked")
def test_reader_obeys_every_law(name: str, number: int) -> None:
    case = CASES[name][number]
    check_reader(
        case.reader,
        case.make,
        open=mdata.open if case.by_region else None,
        checksum=case.checksum,
        max_damages=600,
        excuses=case.excuses,
    )


# a format of our own: 12 bytes of sizes, an affine, voxels, CRC-32

MAGIC = b"TOY1"
SHAPE = (2, 3, 4, 5)


def toy(folder: Path) -> Path:
    voxels = np.arange(np.prod(SHAPE), dtype="<i2").reshape(SHAPE)
    content = MAGIC + affine().astype("<f8").tobytes() + voxels.tobytes()
    (folder / "a.toy").write_bytes(content + zlib.crc32(content).to_bytes(4, "little"))
    return folder / "a.toy"


def read_toy(path: Path) -> Volume:
    content = Path(path).read_bytes()
    if content[:4] != MAGIC or len(content) != 4 + 128 + 240 + 4:
        raise FormatError("a toy", path=str(path), field="file", value=len(content))
    if zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
        raise FormatError("whole", path=str(path), field="CRC", value="another")
    return _without_checks(content)


def _without_checks(content: bytes) -> Volume:
    voxels = np.frombuffer(content[132:372], "<i2").reshape(SHAPE).copy()
    return Volume(torch.as_tensor(voxels), np.frombuffer(content[4:132], "<f8").reshape(4, 4))


class ToyRegions:
    """Boxes of a toy, as medkit.data.open gives them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, start, size) -> Volume:
        return read_toy(self.path).crop(start, size)


LAWS = {"checksum": "file", "open": ToyRegions}


def test_a_reader_that_is_right_obeys_every_law() -> None:
    assert check_reader(read_toy, toy, **LAWS).passed == tuple(reader_laws())


CALLS: list[int] = []
HELD: list[object] = []
KEPT: dict[str, Volume] = {}


class Bare(NamedTuple):
    """An image without the checks of a Volume."""

    data: torch.Tensor
    affine: np.ndarray


def _forgets_randomness(path: Path) -> Volume:
    v = read_toy(path)
    CALLS.append(1)
    return v.like(v.data + len(CALLS))


def _keeps_the_result(path: Path) -> Volume:
    return KEPT.setdefault(str(path), read_toy(path))


def _only_paths(path: Path) -> Volume:
    path.stat()
    return read_toy(path)


def _singular(path: Path) -> Bare:
    return Bare(read_toy(path).data, np.diag([1.0, 1, 0, 1]))


def _not_finite(path: Path) -> Bare:
    return Bare(read_toy(path).data, np.full((4, 4), np.nan))


def _leaves_a_cache(path: Path) -> Volume:
    v = read_toy(path)
    Path(f"{path}.cache").write_bytes(b"")
    return v


def _mends(path: Path) -> Volume:
    v = read_toy(path)
    Path(path).write_bytes(Path(path).read_bytes())
    return v


def _leaves_open(path: Path) -> Volume:
    HELD.append(io.FileIO(path))
    return read_toy(path)


def _leaves_mapped(path: Path) -> Volume:
    v = read_toy(path)
    HELD.append(np.memmap(path, "u1", "r"))
    return v


def _pads(path: Path) -> Volume:
    content = Path(path).read_bytes()
    if content[:4] != MAGIC:
        raise FormatError("a toy", path=str(path), field="file", value=len(content))
    if len(content) > 200:
        content = content.ljust(376, b"\0")
    elif len(content) < 376:
        raise FormatError("a toy", path=str(path), field="file", value=len(content))
    return _without_checks(content)


def _raises_of_its_own(path: Path) -> Volume:
    try:
        return read_toy(path)
    except DataError as error:
        raise RuntimeError("something is wrong") from error


def _trusts(path: Path) -> Volume:
    content = Path(path).read_bytes()
    if content[:4] != MAGIC or len(content) != 376:
        raise FormatError("a toy", path=str(path), field="file", value=len(content))
    return _without_checks(content)


def _trusts_the_voxels(path: Path) -> Volume:
    return Volume(_trusts(path).data, affine())


def _trusts_the_spacing(path: Path) -> Bare:
    spacing = float(_trusts(path).data[0, 0, 0, 1])  # 1, in a good file
    return Bare(_trusts(path).data, np.diag([spacing, 1, 1, 1]))


def _invents(path: Path) -> Volume:
    content = Path(path).read_bytes() if Path(path).is_file() else b""
    if content[:4] != MAGIC:
        return Volume(torch.zeros(1, 1, 1, 1), np.eye(4))
    return read_toy(path)


def _tells_nothing(path: Path) -> Volume:
    try:
        return read_toy(path)
    except DataError:
        raise FormatError("the file is damaged") from None


@pytest.mark.parametrize(
    ("broken", "law", "says"),
    [
        (_forgets_randomness, "same_file_same_volume", "differs"),
        (_keeps_the_result, "same_file_same_volume", "differs, after the first result was changed"),
        (_only_paths, "path_may_be_text", "AttributeError: 'str' object"),
        (_singular, "affine_is_invertible", "cannot be inverted"),
        (_not_finite, "affine_is_invertible", "no finite 4 x 4 matrix"),
        (_leaves_a_cache, "file_is_left_alone", "a.toy.cache was made or removed"),
        (_mends, "file_is_left_alone", "a.toy was changed"),
        (_leaves_open, "no_handle_is_left", "a.toy is still open or mapped after reading"),
        (_leaves_mapped, "no_handle_is_left", "a.toy is still open or mapped after reading"),
        (_pads, "cut_file_is_refused", "a.toy cut to 201 bytes is read as (2, 3, 4, 5) int16"),
        (_raises_of_its_own, "damage_raises_data_errors", "a.toy cut to 0 bytes: raises RuntimeEr"),
        (_trusts, "checksum_is_checked", "without an error, and the affine is [["),
        (_trusts_the_voxels, "checksum_is_checked", "and 1 of 120 voxels are wrong (960 of"),
        (_trusts_the_spacing, "damaged_affine_is_refused", "is read with the affine [[0.0, 0.0"),
        (_invents, "empty_file_is_refused", "an empty file: is read as (1, 1, 1, 1) float32"),
        (_invents, "foreign_file_is_refused", "no image: is read as (1, 1, 1, 1) float32"),
        (_invents, "missing_file_is_an_oserror", "does not exist: is read as (1, 1, 1, 1)"),
        (_invents, "empty_folder_is_refused", "an empty folder: is read as (1, 1, 1, 1)"),
        (_tells_nothing, "errors_name_the_file", "raises FormatError: the file is damaged, with"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("unhooked")
def test_law_finds_a_reader_that_breaks_it(broken, law: str, says: str) -> None:
    HELD.clear()
    report = reader_report(broken, toy, laws=[law], **LAWS)
    HELD.clear()

    assert says in report.violations[law]


class _Shifted(ToyRegions):
    def read(self, start, size) -> Volume:
        v = read_toy(self.path)
        return v.crop([max(0, a - 1) for a in start], size)


class _Wraps(ToyRegions):
    def read(self, start, size) -> Volume:
        v = read_toy(self.path)
        start = [a % n for a, n in zip(start, v.spatial_shape, strict=True)]
        return v.crop(start, size)


class _Misplaced(ToyRegions):
    def read(self, start, size) -> Volume:
        v = read_toy(self.path)
        return Volume(v.crop(start, size).data, v.affine)


class _Unpicklable(ToyRegions):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.file = io.BufferedReader(io.FileIO(path))


@pytest.mark.parametrize(
    ("handle", "law", "says"),
    [
        (_Shifted, "region_is_part_of_the_whole", "is not that part of the whole"),
        (_Wraps, "region_is_part_of_the_whole", "outside, is read without an error"),
        (_Misplaced, "region_is_part_of_the_whole", "does not say where it is"),
        (_Unpicklable, "handle_can_be_pickled", "cannot pickle"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_law_finds_a_handle_that_breaks_it(handle, law: str, says: str) -> None:
    report = reader_report(read_toy, toy, laws=[law], checksum="file", open=handle)

    assert says in report.violations[law]


# other libraries


def _nibabel(path: Path) -> Volume:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.load(path)
    data = torch.as_tensor(np.asarray(image.dataobj).T.copy())
    return Volume(data[None], image.affine[:, [2, 1, 0, 3]])


def _simpleitk(path: Path) -> Volume:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(path))
    return Volume(torch.as_tensor(sitk.GetArrayFromImage(image))[None], np.eye(4))


def _noise(folder: Path) -> Path:
    """Noise, which deflate stores as it is; larger than what a reader looks at to know a format."""
    noise = np.random.default_rng(0).integers(0, 2**15, (1, 64, 64, 64), np.int16)
    mdata.write_nifti(Volume(torch.as_tensor(noise), np.eye(4)), folder / "a.nii.gz")
    return folder / "a.nii.gz"


@pytest.mark.parametrize("peer", [_nibabel, _simpleitk])
def test_a_flipped_bit_that_other_libraries_pass_is_found(peer) -> None:
    with warnings.catch_warnings(action="ignore"):
        report = reader_report(
            peer, _noise, laws=["checksum_is_checked"], checksum="file", max_damages=20
        )
    assert "is read without an error, and" in report.violations["checksum_is_checked"]
    assert "voxels are wrong" in report.violations["checksum_is_checked"]

    ours = check_reader(
        mdata.read, _noise, laws=["checksum_is_checked"], checksum="file", max_damages=20
    )
    assert ours.passed == ("checksum_is_checked",)


def test_simpleitk_reads_a_file_that_is_cut() -> None:
    pytest.importorskip("SimpleITK")
    law = "cut_file_is_refused"
    report = reader_report(_simpleitk, _plain, laws=[law], max_damages=30)

    assert "is read as (1, 3, 4, 5) int16 of other content" in report.violations[law]


def _plain(folder: Path) -> Path:
    mdata.write_nifti(volume(2), folder / "a.nii")
    return folder / "a.nii"


def test_what_make_and_reader_return_is_looked_at() -> None:
    def nothing(path: Path) -> Volume:
        return None  # type: ignore[return-value]

    says = reader_report(nothing, toy, laws=["affine_is_invertible"]).violations.popitem()[1]
    assert says == "returns NoneType, without a tensor `data` and `affine`"
    says = reader_report(
        read_toy, lambda folder: folder / "b", laws=["affine_is_invertible"]
    ).violations.popitem()[1]
    assert says == "make() returned 'b', which does not exist"


def test_laws_are_sentences() -> None:
    assert all(sentence.endswith(".") for sentence in reader_laws().values())


def test_options_are_checked() -> None:
    with refuses("checksum"):
        check_reader(read_toy, toy, checksum="some")
    with pytest.raises(ValueError, match="max_damages"):
        check_reader(read_toy, toy, max_damages=0)
