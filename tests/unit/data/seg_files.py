"""DICOM segmentations written with pydicom, frame by frame."""

from collections.abc import Callable, Sequence

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items

from unit.data.dicom_files import enhanced

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"


def item(**attributes: object) -> Dataset:
    ds = Dataset()
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ds


def code(value: str, meaning: str) -> Items:
    return Items([item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning)])


def described(number: int, label: str) -> Dataset:
    return item(
        SegmentedPropertyCategoryCodeSequence=code("123037004", "Anatomical structure"),
        SegmentNumber=number,
        SegmentLabel=label,
        SegmentAlgorithmType="MANUAL",
        SegmentedPropertyTypeCodeSequence=code("10200004", "Liver"),
    )


def seg(
    frames: Sequence[tuple[int, float]],
    masks: np.ndarray,
    *,
    kind: str = "BINARY",
    between: float | None = None,
    edit: Callable[[int, Dataset], None] = lambda *_: None,
    **attributes: object,
) -> FileDataset:
    """A segmentation; frames are pairs of segment number and z, masks (N, H, W)."""

    def one(number: int, group: Dataset) -> None:
        segment = item(ReferencedSegmentNumber=frames[number][0])
        if kind != "LABELMAP":
            group.SegmentIdentificationSequence = Items([segment])
        edit(number, group)

    uid = LABELMAP if kind == "LABELMAP" else SEG
    ds = enhanced(
        [(-20, -30.5, z) for _, z in frames],
        masks.astype("u1"),
        edit=one,
        SOPClassUID=uid,
        MediaStorageSOPClassUID=uid,
        Modality="SEG",
        SegmentationType=kind,
    )
    names = sorted({number for number, _ in frames})
    ds.SegmentSequence = Items([described(number, f"part {number}") for number in names])
    if between is not None:
        shared = ds.SharedFunctionalGroupsSequence[0]
        shared.PixelMeasuresSequence[0].SpacingBetweenSlices = between
    if kind == "BINARY":
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 1, 1, 0
        packed = np.packbits(masks.astype(bool).ravel(), bitorder="little").tobytes()
        ds.PixelData = packed + bytes(len(packed) % 2)
    if kind == "FRACTIONAL":
        ds.SegmentationFractionalType, ds.MaximumFractionalValue = "OCCUPANCY", 200
    for name, value in attributes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds
