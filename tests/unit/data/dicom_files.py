"""DICOM files written with pydicom, and where their headers put each pixel."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"
JPEG_LS = "1.2.840.10008.1.2.4.80"
J2K = "1.2.840.10008.1.2.4.90"

AXIAL = (1, 0, 0, 0, 1, 0)
SHAPE = (4, 5)


def pixels(number: int, shape: tuple[int, ...] = SHAPE, dtype: str = "u2") -> np.ndarray:
    """Pixels that differ within an image and between images."""
    return (np.arange(np.prod(shape)).reshape(shape) + 37 * number + 5).astype(dtype)


def image(number: int = 0, array: np.ndarray | None = None, **attributes: object) -> FileDataset:
    """One axial CT slice at z = 2.5 * number mm; attributes are set last, None deletes one."""
    array = pixels(number) if array is None else array
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = EXPLICIT
    meta.MediaStorageSOPClassUID = CT
    meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{number}"
    ds = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID, ds.SOPInstanceUID = CT, f"1.2.3.4.{number}"
    ds.Modality, ds.SeriesDescription = "CT", "Thorax"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.1", "1.2.2", "1.2.3"
    ds.InstanceNumber = number + 1
    ds.ImagePositionPatient = [-20, -30.5, 2.5 * number]
    ds.ImageOrientationPatient = list(AXIAL)
    ds.PixelSpacing, ds.SliceThickness = [0.75, 0.5], 3
    set_pixels(ds, array)
    change(ds, **attributes)
    return ds


def change(ds: Dataset, **attributes: object) -> Dataset:
    """Set attributes of a data set, or delete them where the value is None."""
    for name, value in attributes.items():
        if value is None:
            delattr(ds, name)
        elif name in {"TransferSyntaxUID", "MediaStorageSOPClassUID"}:
            setattr(ds.file_meta, name, value)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                setattr(ds, name, value)
    return ds


def set_pixels(ds: Dataset, array: np.ndarray) -> None:
    """Set the pixels and what describes them; arrays are (H, W), (H, W, 3) or (N, H, W)."""
    colour = array.ndim == 3 and array.shape[-1] == 3
    rows, columns = array.shape[:2] if colour else array.shape[-2:]
    ds.Rows, ds.Columns = rows, columns
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    bits = array.dtype.itemsize * 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(array.dtype.kind == "i")
    content = array.tobytes()
    ds.PixelData = content + bytes(len(content) % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"


def save(ds: Dataset, path: Path) -> Path:
    """Write a file as it is described, without pydicom's corrections."""
    syntax = ds.file_meta.TransferSyntaxUID
    if syntax == BIG_ENDIAN and ds.BitsAllocated == 16:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def write_series(folder: Path, images: Sequence[Dataset], *, seed: int = 0) -> Path:
    """Write images under names that are in no order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(seed).permutation(len(images)).tolist()
    for ds, name in zip(images, names, strict=True):
        save(ds, folder / f"{name:03}.dcm")
    return folder


def oriented(rotation: np.ndarray, count: int = 4, *, step: float = 2.5) -> list[FileDataset]:
    """A series whose rows, columns and normal are the columns of a rotation."""
    row, column, normal = rotation.T
    return [
        image(
            number,
            ImageOrientationPatient=[round(x, 9) for x in (*row, *column)],
            ImagePositionPatient=(np.array([-20, 30, 10]) + number * step * normal).tolist(),
        )
        for number in range(count)
    ]


def compressed(ds: FileDataset, syntax: str) -> FileDataset:
    """Compress the pixels with one of pydicom's encoders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.compress(syntax, generate_instance_uid=False)
    return ds


def enhanced(
    positions: Sequence[Sequence[float]],
    array: np.ndarray,
    *,
    edit: Callable[[int, Dataset], None] = lambda *_: None,
    **attributes: object,
) -> FileDataset:
    """An enhanced CT file: orientation and spacing are shared, positions are per frame."""
    described = {"SOPClassUID": ENHANCED_CT, "NumberOfFrames": len(positions)}
    ds = image(0, array, **{**described, **attributes})
    shared = Dataset()
    shared.PlaneOrientationSequence = Items([_item(ImageOrientationPatient=list(AXIAL))])
    shared.PixelMeasuresSequence = Items([_item(PixelSpacing=[0.75, 0.5], SliceThickness=3)])
    ds.SharedFunctionalGroupsSequence = Items([shared])
    frames = []
    for number, position in enumerate(positions):
        item = Dataset()
        item.PlanePositionSequence = Items([_item(ImagePositionPatient=list(position))])
        item.FrameContentSequence = Items([_item(DimensionIndexValues=[1, number + 1])])
        edit(number, item)
        frames.append(item)
    ds.PerFrameFunctionalGroupsSequence = Items(frames)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(ds, name)
    return ds


def rescaled(slope: float, inter: float) -> Items:
    """A pixel value transformation of a functional group."""
    return Items([_item(RescaleSlope=slope, RescaleIntercept=inter, RescaleType="HU")])


def place(ds: Dataset, row: int, column: int) -> np.ndarray:
    """Position of a pixel in RAS mm by the formula of the standard (PS3.3, C.7.6.2.1-1)."""
    along_row, along_column = np.reshape([float(x) for x in ds.ImageOrientationPatient], (2, 3))
    between_rows, between_columns = (float(x) for x in ds.PixelSpacing)
    lps = np.array([float(x) for x in ds.ImagePositionPatient])
    lps = lps + along_row * between_columns * column + along_column * between_rows * row
    return lps * (-1, -1, 1)


def _item(**attributes: object) -> Dataset:
    ds = Dataset()
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ds
