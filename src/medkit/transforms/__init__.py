"""Transforms of samples: images, labels and their geometry, repeatable and invertible."""

from ._affine import RandomAffine, RandomElastic
from ._bias_field import apply_bias_field, num_bias_coefficients
from ._boundary_rows import move_boundaries
from ._clahe import EqualizeContrast, equalize_contrast
from ._colours import (
    ColourStatistics,
    NormalizeColours,
    colour_statistics,
    normalize_colours,
)
from ._compose import Apply, Compose, OneOf, RandomApply, apply_to_batch
from ._crops import (
    CropForeground,
    Pad,
    PadOrCrop,
    RandomSpatialCrop,
    SpatialCrop,
)
from ._foreground_crop import RandomForegroundCrop
from ._grids import Resize, Spacing
from ._intensity import (
    adjust_contrast,
    adjust_gamma,
    gaussian_blur,
    normalize_intensity,
    normalize_percentiles,
    scale_intensity_range,
    simulate_low_resolution,
    window_intensity,
)
from ._mixing import RandomCutOut, mixup
from ._moves import (
    Flip,
    Orientation,
    RandomD4,
    RandomFlip,
    RandomRotate90,
    Rotate90,
)
from ._normalize import (
    NormalizeIntensity,
    NormalizePercentiles,
    ReplaceNonFinite,
    ScaleIntensityRange,
    ShiftIntensity,
    WindowIntensity,
)
from ._random_intensity import (
    RandomBiasField,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    RandomGaussianBlur,
    RandomGaussianNoise,
    RandomLowResolution,
    RandomShiftIntensity,
)
from ._rotate import RandomRotate, Rotate
from ._stain import (
    NormalizeStains,
    RandomStainJitter,
    jitter_stains,
    normalize_stains,
)
from ._transform import Applied, Transform
from ._warp import Warp

__all__ = [
    "Applied",
    "Apply",
    "ColourStatistics",
    "Compose",
    "CropForeground",
    "EqualizeContrast",
    "Flip",
    "NormalizeColours",
    "NormalizeIntensity",
    "NormalizePercentiles",
    "NormalizeStains",
    "OneOf",
    "Orientation",
    "Pad",
    "PadOrCrop",
    "RandomAffine",
    "RandomApply",
    "RandomBiasField",
    "RandomBrightness",
    "RandomContrast",
    "RandomCutOut",
    "RandomD4",
    "RandomElastic",
    "RandomFlip",
    "RandomForegroundCrop",
    "RandomGamma",
    "RandomGaussianBlur",
    "RandomGaussianNoise",
    "RandomLowResolution",
    "RandomRotate",
    "RandomRotate90",
    "RandomShiftIntensity",
    "RandomSpatialCrop",
    "RandomStainJitter",
    "ReplaceNonFinite",
    "Resize",
    "Rotate",
    "Rotate90",
    "ScaleIntensityRange",
    "ShiftIntensity",
    "Spacing",
    "SpatialCrop",
    "Transform",
    "Warp",
    "WindowIntensity",
    "adjust_contrast",
    "adjust_gamma",
    "apply_bias_field",
    "apply_to_batch",
    "colour_statistics",
    "equalize_contrast",
    "gaussian_blur",
    "jitter_stains",
    "mixup",
    "move_boundaries",
    "normalize_colours",
    "normalize_intensity",
    "normalize_percentiles",
    "normalize_stains",
    "num_bias_coefficients",
    "scale_intensity_range",
    "simulate_low_resolution",
    "window_intensity",
]
