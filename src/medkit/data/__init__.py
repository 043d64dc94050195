"""Volumes, readers, writers, datasets and samplers."""

from medkit._core.file_errors import (
    AmbiguousSeriesError,
    ChecksumError,
    CodecMissingError,
    DataError,
    FormatError,
    GeometryError,
    LimitError,
    TruncatedError,
    UnsafeReferenceError,
)

from ._cache import cache
from ._cached_dataset import CachedDataset
from ._class_sampler import ClassBalancedPatchSampler
from ._dataset import Case, VolumeDataset
from ._dicom import read_dicom
from ._dicom_seg import DicomSegmentation, read_dicom_seg
from ._dicom_seg_header import DicomCode, DicomSegment
from ._dicom_series import DicomSeries, scan
from ._example import build_example, parse_example
from ._feature import Feature
from ._from_peers import from_monai, from_nibabel, from_sitk, from_torchio
from ._grid_patches import GridPatchDataset
from ._group_batches import CompleteGroupBatchSampler
from ._group_split import group_split
from ._hdf5 import read_hdf5, write_hdf5
from ._hdf5_reader import HDF5Reader
from ._jpeg import read_jpeg
from ._lazy_volume import LazyCase, LazyVolume
from ._limits import Limits
from ._memory_cache import MemoryCache
from ._mha import read_mha, write_mha
from ._nifti import read_nifti, write_nifti
from ._notice import Notice
from ._npy import read_npy, read_npz, write_npz
from ._nrrd import read_nrrd, write_nrrd
from ._oct_layers import OctLayerDataset
from ._oct_phantom import OctPhantom, oct_phantom
from ._open import open  # noqa: A004  the name of the contract
from ._patch_samplers import ForegroundPatchSampler, UniformPatchSampler
from ._patches import PatchDataset
from ._png import read_png
from ._read import read, write
from ._tfrecord import read_tfrecord, write_tfrecord
from ._tfrecord_dataset import TFRecordDataset
from ._tiff import read_tiff, write_tiff
from ._tumour_phantom import tumour_phantom
from ._valid_sampler import ValidPatchSampler
from ._volume import Volume
from ._weighted_sampler import WeightedPatchSampler
from ._zarr import read_zarr

__all__ = [
    "AmbiguousSeriesError",
    "CachedDataset",
    "Case",
    "ChecksumError",
    "ClassBalancedPatchSampler",
    "CodecMissingError",
    "CompleteGroupBatchSampler",
    "DataError",
    "DicomCode",
    "DicomSegment",
    "DicomSegmentation",
    "DicomSeries",
    "Feature",
    "ForegroundPatchSampler",
    "FormatError",
    "GeometryError",
    "GridPatchDataset",
    "HDF5Reader",
    "LazyCase",
    "LazyVolume",
    "LimitError",
    "Limits",
    "MemoryCache",
    "Notice",
    "OctLayerDataset",
    "OctPhantom",
    "PatchDataset",
    "TFRecordDataset",
    "TruncatedError",
    "UniformPatchSampler",
    "UnsafeReferenceError",
    "ValidPatchSampler",
    "Volume",
    "VolumeDataset",
    "WeightedPatchSampler",
    "build_example",
    "cache",
    "from_monai",
    "from_nibabel",
    "from_sitk",
    "from_torchio",
    "group_split",
    "oct_phantom",
    "open",
    "parse_example",
    "read",
    "read_dicom",
    "read_dicom_seg",
    "read_hdf5",
    "read_jpeg",
    "read_mha",
    "read_nifti",
    "read_npy",
    "read_npz",
    "read_nrrd",
    "read_png",
    "read_tfrecord",
    "read_tiff",
    "read_zarr",
    "scan",
    "tumour_phantom",
    "write",
    "write_hdf5",
    "write_mha",
    "write_nifti",
    "write_npz",
    "write_nrrd",
    "write_tfrecord",
    "write_tiff",
]
