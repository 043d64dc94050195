"""Intensity formulas as transforms of samples."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ._intensity import (
    as_float,
    normalize_intensity,
    normalize_percentiles,
    scale_intensity_range,
    window_intensity,
)
from ._transform import IntensityTransform, Sample, names


class NormalizeIntensity(IntensityTransform):
    """Mean 0 and standard deviation 1, as in :func:`normalize_intensity`.

    Args:
        offset: Subtracted; None subtracts the mean.
        scale: Divisor; None divides by the standard deviation.
        nonzero: Whether only voxels other than 0 count and change.
        channel_wise: Whether each channel has its own mean and deviation.
        images: Keys of the images.

    Example:
        >>> import torch
        >>> NormalizeIntensity()({"image": torch.tensor([[0.0, 2.0]])})["image"]
        tensor([[-1.,  1.]])
    """

    def __init__(
        self,
        *,
        offset: float | None = None,
        scale: float | None = None,
        nonzero: bool = False,
        channel_wise: bool = False,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.offset: float | None = offset
        self.scale: float | None = scale
        self.nonzero: bool = nonzero
        self.channel_wise: bool = channel_wise
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return normalize_intensity(
            image,
            offset=self.offset,
            scale=self.scale,
            nonzero=self.nonzero,
            channel_wise=self.channel_wise,
        )


class ScaleIntensityRange(IntensityTransform):
    """One range of values to another, as in :func:`scale_intensity_range`.

    Args:
        input_range: Values (low, high) that become the ends of ``output_range``.
        output_range: What they become.
        clip: Whether values beyond become the nearer end.
        images: Keys of the images.

    Raises:
        ValueError: If the ends of ``input_range`` are equal.

    Example:
        >>> import torch
        >>> scale = ScaleIntensityRange(input_range=(0, 255))
        >>> scale({"image": torch.tensor([[0, 51, 255]])})["image"]
        tensor([[0.0000, 0.2000, 1.0000]])
    """

    def __init__(
        self,
        *,
        input_range: Sequence[float],
        output_range: Sequence[float] = (0.0, 1.0),
        clip: bool = True,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.input_range: tuple[float, ...] = tuple(input_range)
        self.output_range: tuple[float, ...] = tuple(output_range)
        self.clip: bool = clip
        self.images: tuple[str, ...] = names(images)
        self._changed(torch.zeros(1, 1))

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return self._changed(image)

    def _changed(self, image: Tensor) -> Tensor:
        ranges = {"input_range": self.input_range, "output_range": self.output_range}
        return scale_intensity_range(image, **ranges, clip=self.clip)


class WindowIntensity(IntensityTransform):
    """A CT window to [0, 1], as in :func:`window_intensity`.

    Args:
        centre: Middle of the window.
        width: Of the window, above 0.
        images: Keys of the images.

    Raises:
        ValueError: If ``width`` is not positive.

    Example:
        >>> import torch
        >>> WindowIntensity(centre=40, width=400)({"image": torch.tensor([[40.0]])})["image"]
        tensor([[0.5000]])
    """

    def __init__(
        self, *, centre: float, width: float, images: str | Sequence[str] = "image"
    ) -> None:
        self.centre: float = centre
        self.width: float = width
        self.images: tuple[str, ...] = names(images)
        window_intensity(torch.zeros(1, 1), centre=centre, width=width)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return window_intensity(image, centre=self.centre, width=self.width)


class NormalizePercentiles(IntensityTransform):
    """Two percentiles to 0 and 1, as in :func:`normalize_percentiles`.

    Args:
        lower: Percentile that becomes 0, in [0, 100].
        upper: Percentile that becomes 1.
        nonzero: Whether only values other than 0 are counted.
        channel_wise: Whether each channel has its own percentiles.
        images: Keys of the images.

    Raises:
        ValueError: If the percentiles are not in order.

    Example:
        >>> import torch
        >>> scale = NormalizePercentiles(lower=0, upper=100)
        >>> scale({"image": torch.tensor([[1.0, 2.0, 3.0]])})["image"]
        tensor([[0.0000, 0.5000, 1.0000]])
    """

    def __init__(
        self,
        *,
        lower: float = 0.5,
        upper: float = 99.5,
        nonzero: bool = False,
        channel_wise: bool = True,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.lower: float = lower
        self.upper: float = upper
        self.nonzero: bool = nonzero
        self.channel_wise: bool = channel_wise
        self.images: tuple[str, ...] = names(images)
        self._changed(torch.zeros(1, 1))

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return self._changed(image)

    def _changed(self, image: Tensor) -> Tensor:
        return normalize_percentiles(
            image,
            lower=self.lower,
            upper=self.upper,
            nonzero=self.nonzero,
            channel_wise=self.channel_wise,
        )


class ShiftIntensity(IntensityTransform):
    """Adds a number to every voxel.

    Args:
        offset: What is added.
        images: Keys of the images.

    Example:
        >>> import torch
        >>> ShiftIntensity(offset=0.5)({"image": torch.zeros(1, 2)})["image"]
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, *, offset: float, images: str | Sequence[str] = "image") -> None:
        self.offset: float = offset
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        return as_float(image) + self.offset


class ReplaceNonFinite(IntensityTransform):
    """Puts numbers in the place of NaN and infinities.

    Args:
        value: In the place of NaN.
        infinity: Size of what stands for infinities, with their sign; None is the largest finite
            value of the type.
        images: Keys of the images.

    Example:
        >>> import torch
        >>> broken = torch.tensor([[float("nan"), 1.0]])
        >>> ReplaceNonFinite()({"image": broken})["image"]
        tensor([[0., 1.]])
    """

    def __init__(
        self,
        *,
        value: float = 0.0,
        infinity: float | None = None,
        images: str | Sequence[str] = "image",
    ) -> None:
        self.value: float = value
        self.infinity: float | None = infinity
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        low = None if self.infinity is None else -self.infinity
        return as_float(image).nan_to_num(self.value, posinf=self.infinity, neginf=low)
