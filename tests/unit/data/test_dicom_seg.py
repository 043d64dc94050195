"""DICOM segmentations: odd files written by hand, whole ones by highdicom and read back by both."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from medkit.data import (
    DataError,
    DicomCode,
    DicomSegmentation,
    FormatError,
    GeometryError,
    LimitError,
    Limits,
    TruncatedError,
    read,
    read_dicom,
    read_dicom_seg,
    scan,
)

pytest.importorskip("pydicom")

from unit.data import dicom_files as files
from unit.data.seg_files import Items, item, seg
from unit.losses.refusals import refuses

RNG = np.random.default_rng(0)
ONE = RNG.random((3, 4, 5)) < 0.5
PARTS = RNG.integers(0, 4, (6, 7, 9))
"""A label map of 63 pixels a plane, so that frames begin inside of bytes."""


def saved(folder: Path, ds) -> Path:
    return files.save(ds, folder / "seg.dcm")


def refused(folder: Path, ds, error: type[DataError], *words: str, **options: object) -> None:
    with pytest.raises(error) as caught:
        read_dicom_seg(saved(folder, ds), **options)
    assert type(caught.value) is error
    for word in ("seg.dcm", *words):
        assert word in str(caught.value)


# by hand


def three(z=(0, 2.5, 5), **options: object):
    return seg([(1, one) for one in z], ONE, **options)


def test_frames_are_sorted_and_bits_unpacked(tmp_path: Path) -> None:
    found = read_dicom_seg(saved(tmp_path, three(z=(5, 0, 2.5))))

    assert found.labels.data.dtype == torch.uint8
    assert np.array_equal(found.labels.data[0].numpy(), ONE[[1, 2, 0]])
    assert found.labels.spacing == (2.5, 0.75, 0.5)
    assert (found.type, found.fractional_type, found.labels.warnings) == ("BINARY", "", ())


def test_segments_have_names_and_codes(tmp_path: Path) -> None:
    (segment,) = read_dicom_seg(saved(tmp_path, three())).segments

    assert segment[:3] == (1, "part 1", "MANUAL")
    assert segment.category == DicomCode("123037004", "SCT", "Anatomical structure")
    assert segment.property == DicomCode("10200004", "SCT", "Liver")


def test_labels_of_other_alphabets_are_read(tmp_path: Path) -> None:
    ds = three(SpecificCharacterSet="ISO_IR 192")
    ds.SegmentSequence[0].SegmentLabel = "肝臓"
    del ds.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    (segment,) = read_dicom_seg(saved(tmp_path, ds)).segments

    assert (segment.label, segment.property) == ("肝臓", None)


def test_absent_planes_are_0(tmp_path: Path) -> None:
    labels = read_dicom_seg(saved(tmp_path, three(z=(0, 5, 12.5), between=2.5))).labels

    assert labels.shape == (1, 6, 4, 5)
    assert np.array_equal(labels.data[0, [0, 2, 5]].numpy(), ONE)
    assert not labels.data[0, [1, 3, 4]].any()
    assert labels.spacing == (2.5, 0.75, 0.5)
    (notice,) = labels.warnings
    assert notice == ("absent", "3 of 6 planes have no frame: 0")


def test_without_a_stated_step_the_smallest_decides(tmp_path: Path) -> None:
    assert read_dicom_seg(saved(tmp_path, three(z=(0, 2, 8)))).labels.shape == (1, 5, 4, 5)


def test_one_plane_takes_the_stated_step(tmp_path: Path) -> None:
    ds = seg([(1, 7.0)], ONE[:1], between=2.5)
    assert read_dicom_seg(saved(tmp_path, ds)).labels.spacing == (2.5, 0.75, 0.5)
    ds = seg([(1, 7.0)], ONE[:1])
    assert read_dicom_seg(saved(tmp_path, ds)).labels.spacing == (3, 0.75, 0.5)


@pytest.mark.parametrize(("largest", "dtype"), [(255, "u1"), (256, "i2"), (40_000, "i4")])
def test_dtype_holds_the_largest_number(tmp_path: Path, largest: int, dtype: str) -> None:
    ds = seg([(largest, 0.0)], np.ones((1, 4, 5)))
    labels = read_dicom_seg(saved(tmp_path, ds)).labels.data.numpy()
    assert labels.dtype == dtype
    assert (labels == largest).all()


def test_tilted_planes_give_the_affine_of_the_image(tmp_path: Path) -> None:
    slices = [
        files.image(n, ImagePositionPatient=[-20, -30.5 + 0.7 * n, 2.5 * n]) for n in range(3)
    ]
    image = read_dicom(files.write_series(tmp_path / "ct", slices))

    def tilt(number: int, group) -> None:
        group.PlanePositionSequence[0].ImagePositionPatient = slices[number].ImagePositionPatient

    labels = read_dicom_seg(saved(tmp_path, three(edit=tilt))).labels
    np.testing.assert_allclose(labels.affine, image.affine, atol=1e-9)
    assert labels.warnings == image.warnings
    assert labels.warnings[0].code == "tilted"


def test_compressed_fractions_and_label_maps(tmp_path: Path) -> None:
    values = RNG.integers(0, 4, (3, 8, 8)) * 50
    frames = [(1, z) for z in (0, 1, 2)]
    ds = seg(frames, values, kind="FRACTIONAL")
    plain = read_dicom_seg(saved(tmp_path, ds))
    packed = read_dicom_seg(saved(tmp_path, files.compressed(ds, files.RLE)))
    assert torch.equal(plain.labels.data, packed.labels.data)
    assert np.array_equal(plain.labels.data[0].numpy(), (values / 200).astype("f4"))
    assert plain.fractional_type == "OCCUPANCY"


def test_label_map_object(tmp_path: Path) -> None:
    ds = seg([(n + 1, float(n)) for n in range(3)], PARTS[:3], kind="LABELMAP")
    path = saved(tmp_path, ds)
    assert np.array_equal(read_dicom_seg(path).labels.data[0].numpy(), PARTS[:3])
    channels = read_dicom_seg(path, overlap="channels").labels.data
    assert np.array_equal(channels.numpy(), np.stack([PARTS[:3] == n for n in (1, 2, 3)]))
    assert channels.dtype == torch.uint8
    del ds.SegmentSequence[2]
    refused(tmp_path, ds, FormatError, "PixelData must be numbers of segments; got [3]")


def test_overlap_is_named_or_kept(tmp_path: Path) -> None:
    masks = np.stack([np.ones((4, 5)), np.eye(4, 5), np.ones((4, 5))])
    ds = seg([(1, 0.0), (7, 0.0), (7, 2.0)], masks)
    refused(
        tmp_path, ds, FormatError, "1 'part 1' and 7 'part 7' overlap in 4 voxels", "channels"
    )  # fmt: skip
    channels = read_dicom_seg(tmp_path / "seg.dcm", overlap="channels").labels.data.numpy()
    assert channels.dtype == np.uint8
    assert channels.sum(axis=(2, 3)).tolist() == [[20, 0], [4, 20]]


def _turn(number: int, group) -> None:
    if number == 1:
        turned = item(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
        group.PlaneOrientationSequence = Items([turned])


def _without(name: str):
    def edit(number: int, group) -> None:
        if number == 2:
            delattr(group, name)

    return edit


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"z": (0, 2.5, 6), "between": 2.5}, GeometryError, "3.5 mm between frames 2 and 3"),
        ({"z": (0, 2, 5)}, GeometryError, "whole number of steps of 2 mm"),
        ({"between": 5}, GeometryError, "2.5 mm between frames 1 and 2"),
        ({"between": 1e-9}, GeometryError, "steps of 1e-09 mm"),
        ({"edit": _turn}, GeometryError, "others in frame 2 than in frame 1"),
        ({"edit": _without("PlanePositionSequence")}, GeometryError, "none in frame 3"),
        ({"edit": _without("SegmentIdentificationSequence")}, FormatError, "none for frame 3"),
        ({"z": (0, 2.5, 2.5)}, FormatError, "frames 2 and 3 of segment 1"),
        ({"PerFrameFunctionalGroupsSequence": None}, FormatError, "says where each frame is"),
        ({"SegmentSequence": None}, FormatError, "SegmentSequence must be there"),
        ({"SegmentationType": "OTHER"}, FormatError, "BINARY, FRACTIONAL; got 'OTHER'"),
        ({"SOPClassUID": files.CT}, FormatError, "read_dicom."),
        ({"BitsAllocated": 8}, FormatError, "1 in a BINARY segmentation; got 8"),
        ({"PhotometricInterpretation": "RGB"}, FormatError, "MONOCHROME2"),
        ({"NumberOfFrames": 4}, FormatError, "4 frames; got 3 items"),
        ({"PixelData": bytes(6)}, TruncatedError, "8 bytes; got 6"),
        ({"PixelData": bytes(10)}, FormatError, "8 bytes, by rows"),
        ({"PixelData": None}, TruncatedError, "PixelData must be there"),
        ({"kind": "FRACTIONAL", "MaximumFractionalValue": 0}, FormatError, "in 1..255; got 0"),
    ],
)
def test_odd_files_are_refused_by_name(tmp_path: Path, options, error, words: str) -> None:
    refused(tmp_path, three(**options), error, words)


def test_more_odd_files(tmp_path: Path) -> None:
    ds = seg([(1, 0.0)], np.full((1, 4, 5), 201), kind="FRACTIONAL")
    refused(tmp_path, ds, FormatError, "at most 200 (MaximumFractionalValue); got 201")
    ds = three()
    ds.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence[
        0
    ].ReferencedSegmentNumber = 2
    refused(tmp_path, ds, FormatError, "the number of a segment; got 2 in frame 2")
    ds = three()
    ds.SegmentSequence.append(ds.SegmentSequence[0])
    refused(tmp_path, ds, FormatError, "different for every segment; got [1, 1]")
    refused(tmp_path, three(), LimitError, "1 x 3 planes", limits=Limits(max_bytes=50))
    with refuses("overlap"):
        read_dicom_seg(tmp_path / "seg.dcm", overlap="last")
    assert read_dicom_seg(
        saved(tmp_path, three(PixelData=bytes(10))), verify=False
    ).labels.shape == (1, 3, 4, 5)


def test_read_names_the_reader(tmp_path: Path) -> None:
    path = saved(tmp_path, three())
    with pytest.raises(FormatError, match=r"medkit\.data\.read_dicom_seg"):
        read(path)
    (found,) = scan(tmp_path)
    assert "read_dicom_seg" in found.problems[0].message


# beside highdicom

ROTATION = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
ROTATION *= np.sign(np.linalg.det(ROTATION))


def by_highdicom(folder: Path, array: np.ndarray, kind: str, source=None, **options: object):
    """Write a segmentation of a series; return what highdicom reads of it."""
    hd = pytest.importorskip("highdicom")
    source = source or files.oriented(ROTATION, len(array))
    for ds in source:
        _complete(ds, array.shape[1:3])
    files.write_series(folder / "ct", source)
    count = array.shape[3] if array.ndim == 4 else int(array.max())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = hd.seg.Segmentation(
            source, array, kind, [_segment(hd, n) for n in range(1, count + 1)],
            series_instance_uid="1.2.9", series_number=9, sop_instance_uid="1.2.9.1",
            instance_number=1, manufacturer="-", manufacturer_model_name="-",
            software_versions="1", device_serial_number="1", **options,
        )  # fmt: skip
        made.save_as(folder / "seg.dcm")
        return hd.seg.segread(folder / "seg.dcm")


def _complete(ds, shape: tuple[int, ...]) -> None:
    files.set_pixels(ds, np.zeros(shape, "u2"))
    for name in (
        "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate",
        "StudyTime", "AccessionNumber", "ReferringPhysicianName",
    ):  # fmt: skip
        setattr(ds, name, "")


def _segment(hd, number: int):
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"part {number}",
        segmented_property_category=hd.sr.CodedConcept("123037004", "SCT", "Anatomical structure"),
        segmented_property_type=hd.sr.CodedConcept("10200004", "SCT", "Liver"),
        algorithm_type="MANUAL",
    )


def same_grid(found: DicomSegmentation, peer, folder: Path, data: np.ndarray) -> None:
    """Hold voxels against highdicom's at the same places, and the grid against the image's."""
    image = read_dicom(folder / "ct")
    labels = found.labels
    start = np.linalg.solve(image.affine, labels.affine[:, 3])[:3]
    assert np.abs(start - np.rint(start)).max() < 1e-6
    np.testing.assert_allclose(labels.affine[:, :3], image.affine[:, :3], atol=1e-6)
    first = round(float(start[0]))
    np.testing.assert_array_equal(
        labels.data.numpy(), data[:, first : first + labels.spatial_shape[0]]
    )
    ours = labels.data.numpy()
    theirs, affine = np.asarray(peer.array), np.asarray(peer.affine)
    theirs = np.moveaxis(theirs, -1, 0) if theirs.ndim == 4 else theirs[None]
    assert theirs.shape == ours.shape
    forwards = np.dot(affine[:3, 0], labels.affine_lps[:3, 2]) > 0
    np.testing.assert_array_equal(ours, theirs if forwards else theirs[:, ::-1])
    corner = (0 if forwards else len(theirs[0]) - 1, 0, 0, 1)
    np.testing.assert_allclose(affine @ corner, labels.affine_lps[:, 3], atol=1e-6)


@pytest.mark.parametrize("gaps", [(), (1, 3)])
def test_binary_of_highdicom(tmp_path: Path, gaps: tuple[int, ...]) -> None:
    parts = PARTS.astype("u1")
    parts[list(gaps)] = 0
    peer = by_highdicom(tmp_path, parts, "BINARY")
    found = read_dicom_seg(tmp_path / "seg.dcm")
    same_grid(found, peer.get_volume(combine_segments=True), tmp_path, parts[None])
    assert [segment.label for segment in found.segments] == ["part 1", "part 2", "part 3"]
    found = read_dicom_seg(tmp_path / "seg.dcm", overlap="channels")
    masks = np.stack([parts == n for n in (1, 2, 3)])
    same_grid(found, peer.get_volume(), tmp_path, masks)


def test_gaps_at_the_ends_are_unknown(tmp_path: Path) -> None:
    parts = PARTS.astype("u1")
    parts[[0, 2, 5]] = 0
    peer = by_highdicom(tmp_path, parts, "BINARY")
    found = read_dicom_seg(tmp_path / "seg.dcm")
    assert found.labels.shape == (1, 4, 7, 9)
    same_grid(found, peer.get_volume(combine_segments=True), tmp_path, parts[None])


def test_overlap_of_highdicom(tmp_path: Path) -> None:
    masks = (RNG.random((4, 5, 6, 2)) < 0.6).astype("u1")
    peer = by_highdicom(tmp_path, masks, "BINARY")
    with pytest.raises(FormatError, match="1 'part 1' and 2 'part 2' overlap"):
        read_dicom_seg(tmp_path / "seg.dcm")
    found = read_dicom_seg(tmp_path / "seg.dcm", overlap="channels")
    same_grid(found, peer.get_volume(), tmp_path, np.moveaxis(masks, -1, 0))


@pytest.mark.parametrize("syntax", [files.EXPLICIT, files.RLE])
def test_fractions_of_highdicom(tmp_path: Path, syntax: str) -> None:
    steps = RNG.integers(0, 201, (4, 5, 6, 2))
    peer = by_highdicom(
        tmp_path, steps / 200, "FRACTIONAL", max_fractional_value=200, transfer_syntax_uid=syntax
    )
    found = read_dicom_seg(tmp_path / "seg.dcm")
    assert found.labels.data.dtype == torch.float32
    assert (found.type, found.fractional_type) == ("FRACTIONAL", "PROBABILITY")
    expected = (np.moveaxis(steps, -1, 0) / 200).astype("f4")
    same_grid(found, peer.get_volume(), tmp_path, expected)


@pytest.mark.parametrize("syntax", [files.EXPLICIT, files.RLE, files.JPEG_LS])
def test_label_maps_of_highdicom(tmp_path: Path, syntax: str) -> None:
    parts = PARTS.astype("u1")
    peer = by_highdicom(tmp_path, parts, "LABELMAP", transfer_syntax_uid=syntax)
    found = read_dicom_seg(tmp_path / "seg.dcm")
    assert found.type == "LABELMAP"
    same_grid(found, peer.get_volume(combine_segments=True), tmp_path, parts[None])
