"""Volumes, readers, writers, datasets and samplers."""

from medkit.data._dataset import Case, VolumeDataset
from medkit.data._dicom import read_dicom
from medkit.data._dicom_series import DicomSeries, scan
from medkit.data._errors import (
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
from medkit.data._example import build_example, parse_example
from medkit.data._feature import Feature
from medkit.data._group_batches import CompleteGroupBatchSampler
from medkit.data._group_split import group_split
from medkit.data._hdf5 import read_hdf5, write_hdf5
from medkit.data._hdf5_reader import HDF5Reader
from medkit.data._limits import Limits
from medkit.data._mha import read_mha, write_mha
from medkit.data._nifti import read_nifti, write_nifti
from medkit.data._notice import Notice
from medkit.data._npy import read_npy, read_npz, write_npz
from medkit.data._nrrd import read_nrrd, write_nrrd
from medkit.data._open import LazyVolume, open  # noqa: A004  the name of the contract
from medkit.data._patch_samplers import ForegroundPatchSampler, UniformPatchSampler
from medkit.data._patches import PatchDataset
from medkit.data._read import read, write
from medkit.data._tfrecord import read_tfrecord, write_tfrecord
from medkit.data._tfrecord_dataset import TFRecordDataset
from medkit.data._volume import Volume

__all__ = [
    "AmbiguousSeriesError",
    "Case",
    "ChecksumError",
    "CodecMissingError",
    "CompleteGroupBatchSampler",
    "DataError",
    "DicomSeries",
    "Feature",
    "ForegroundPatchSampler",
    "FormatError",
    "GeometryError",
    "HDF5Reader",
    "LazyVolume",
    "LimitError",
    "Limits",
    "Notice",
    "PatchDataset",
    "TFRecordDataset",
    "TruncatedError",
    "UniformPatchSampler",
    "UnsafeReferenceError",
    "Volume",
    "VolumeDataset",
    "build_example",
    "group_split",
    "open",
    "parse_example",
    "read",
    "read_dicom",
    "read_hdf5",
    "read_mha",
    "read_nifti",
    "read_npy",
    "read_npz",
    "read_nrrd",
    "read_tfrecord",
    "scan",
    "write",
    "write_hdf5",
    "write_mha",
    "write_nifti",
    "write_npz",
    "write_nrrd",
    "write_tfrecord",
]
