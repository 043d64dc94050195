"""Volumes, readers, writers, datasets and samplers."""

from medkit.data._dataset import Case, VolumeDataset
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
from medkit.data._limits import Limits
from medkit.data._nifti import read_nifti, write_nifti
from medkit.data._notice import Notice
from medkit.data._patch_samplers import ForegroundPatchSampler, UniformPatchSampler
from medkit.data._patches import PatchDataset
from medkit.data._read import read, write
from medkit.data._volume import Volume

__all__ = [
    "AmbiguousSeriesError",
    "Case",
    "ChecksumError",
    "CodecMissingError",
    "DataError",
    "ForegroundPatchSampler",
    "FormatError",
    "GeometryError",
    "LimitError",
    "Limits",
    "Notice",
    "PatchDataset",
    "TruncatedError",
    "UniformPatchSampler",
    "UnsafeReferenceError",
    "Volume",
    "VolumeDataset",
    "read",
    "read_nifti",
    "write",
    "write_nifti",
]
