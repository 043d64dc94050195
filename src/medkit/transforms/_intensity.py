"""Formulas that change the values of an image."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import resample

_MODES = ("linear", "bilinear", "trilinear")


def as_float(image: Tensor) -> Tensor:
    """Return an image in a type to calculate in: float64 stays, all else becomes float32."""
    return image if image.dtype == torch.float64 else image.float()


def normalize_intensity(
    image: Shaped[Tensor, "channel *spatial"],
    *,
    offset: float | None = None,
    scale: float | None = None,
    nonzero: bool = False,
    channel_wise: bool = False,
) -> Float[Tensor, "channel *spatial"]:
    r"""Image of mean 0 and standard deviation 1: :math:`(x - \mu) / \sigma`.

    The deviation is that of the population; an image of one value becomes 0.

    Args:
        image: Of any type.
        offset: Subtracted; None subtracts the mean.
        scale: Divisor; None divides by the standard deviation.
        nonzero: Whether only voxels other than 0 count and change.
        channel_wise: Whether each channel has its own mean and deviation.

    Returns:
        The image in float32, or float64 if it was.

    Example:
        >>> import torch
        >>> normalize_intensity(torch.tensor([[0.0, 1.0, 3.0]]), nonzero=True)
        tensor([[ 0., -1.,  1.]])
    """
    if channel_wise:
        each = [
            normalize_intensity(c[None], offset=offset, scale=scale, nonzero=nonzero) for c in image
        ]
        return torch.cat(each)
    values = as_float(image)
    moments = _counted_moments(image, values, nonzero=nonzero)
    if moments is None:
        return values.clone()
    middle = moments[0] if offset is None else offset
    spread = moments[1] if scale is None else scale
    output = values - middle if values is image else values.sub_(middle)
    output.div_(1.0 if float(spread) == 0 else spread)
    return output.masked_fill_(image == 0, 0.0) if nonzero else output


def scale_intensity_range(
    image: Shaped[Tensor, "channel *spatial"],
    *,
    input_range: Sequence[float],
    output_range: Sequence[float] = (0.0, 1.0),
    clip: bool = True,
) -> Float[Tensor, "channel *spatial"]:
    """Image with one range of values mapped to another, by a straight line.

    Args:
        image: Of any type.
        input_range: Values (low, high) that become the ends of ``output_range``.
        output_range: What they become.
        clip: Whether values beyond become the nearer end.

    Returns:
        The image in float32, or float64 if it was.

    Raises:
        ValueError: If the ends of ``input_range`` are equal.

    Example:
        >>> import torch
        >>> ct = torch.tensor([[-1000.0, 40.0, 240.0]])
        >>> scale_intensity_range(ct, input_range=(-160, 240))
        tensor([[0.0000, 0.5000, 1.0000]])
    """
    low, high = (check.real("input_range", value) for value in input_range)
    new_low, new_high = (check.real("output_range", value) for value in output_range)
    if low == high:
        raise check.fail("input_range", "two different values", input_range)
    output = (as_float(image) - low) / (high - low) * (new_high - new_low) + new_low
    return output.clamp_(min(new_low, new_high), max(new_low, new_high)) if clip else output


def window_intensity(
    image: Shaped[Tensor, "channel *spatial"], *, centre: float, width: float
) -> Float[Tensor, "channel *spatial"]:
    """Image through a CT window: ``centre - width / 2`` becomes 0, ``centre + width / 2`` 1.

    Values beyond are clipped. Usual windows in Hounsfield units (centre, width): lung -600, 1500;
    soft tissue 40, 400; brain 40, 80; bone 400, 1800.

    Args:
        image: Usually in Hounsfield units.
        centre: Middle of the window.
        width: Of the window, above 0.

    Returns:
        Values in [0, 1].

    Raises:
        ValueError: If ``width`` is not positive.

    Example:
        >>> import torch
        >>> window_intensity(torch.tensor([[-1000.0, 40.0, 140.0]]), centre=40, width=400)
        tensor([[0.0000, 0.5000, 0.7500]])
    """
    half = check.positive("width", width) / 2
    return scale_intensity_range(image, input_range=(centre - half, centre + half))


def normalize_percentiles(
    image: Shaped[Tensor, "channel *spatial"],
    *,
    lower: float = 0.5,
    upper: float = 99.5,
    nonzero: bool = False,
    channel_wise: bool = True,
) -> Float[Tensor, "channel *spatial"]:
    """Image with two percentiles mapped to 0 and 1 and values beyond clipped.

    Percentiles lie between the sorted values as ``numpy.percentile`` puts them. An image of one
    value becomes 0.

    Args:
        image: Of any type.
        lower: Percentile that becomes 0, in [0, 100].
        upper: Percentile that becomes 1.
        nonzero: Whether only values other than 0 are counted.
        channel_wise: Whether each channel has its own percentiles.

    Returns:
        Values in [0, 1].

    Raises:
        ValueError: If the percentiles are not in order.

    Example:
        >>> import torch
        >>> normalize_percentiles(torch.arange(5.0)[None], lower=0, upper=50)
        tensor([[0.0000, 0.5000, 1.0000, 1.0000, 1.0000]])
    """
    if not 0 <= lower < upper <= 100:
        raise check.fail("lower and upper", "in order within 0 to 100", (lower, upper))
    values = as_float(image)
    parts = [channel[None] for channel in values] if channel_wise else [values]
    output: list[Tensor] = []
    for part in parts:
        counted = part[part != 0] if nonzero else part.flatten()
        ends = [_percentile(counted, q) for q in (lower, upper)] if counted.numel() else [0.0, 0.0]
        if ends[0] == ends[1]:
            output.append(torch.zeros_like(part))
        else:
            output.append(scale_intensity_range(part, input_range=ends))
    return torch.cat(output)


def adjust_gamma(
    image: Shaped[Tensor, "channel *spatial"],
    *,
    gamma: float,
    inverted: bool = False,
    keeps_statistics: bool = False,
) -> Float[Tensor, "channel *spatial"]:
    r"""Image with its range raised to a power: :math:`r (x - m)^\gamma / r^\gamma + m`.

    :math:`m` is the least value of a channel and :math:`r` its range.

    Args:
        image: Of any type.
        gamma: The power; below 1 brightens.
        inverted: Whether the negative image is changed, and turned back.
        keeps_statistics: Whether mean and standard deviation of each channel are put back after.

    Returns:
        The image in float32, or float64 if it was.

    Raises:
        ValueError: If ``gamma`` is not positive.

    Example:
        >>> import torch
        >>> adjust_gamma(torch.tensor([[0.0, 1.0, 2.0]]), gamma=2.0)
        tensor([[0.0000, 0.5000, 2.0000]])
    """
    power = check.positive("gamma", gamma)
    output: list[Tensor] = []
    for channel in as_float(image):
        low, high = channel.aminmax()
        extent = (high - low).clamp_min(torch.finfo(channel.dtype).tiny)
        if inverted:
            changed = high - (high - channel).div_(extent).pow_(power).mul_(extent)
        else:
            changed = (channel - low).div_(extent).pow_(power).mul_(extent).add_(low)
        if keeps_statistics:
            mean, deviation = _moments(channel)
            new_mean, new_deviation = _moments(changed)
            ratio = deviation / new_deviation.clamp_min(1e-8)
            changed = changed.sub_(new_mean).mul_(ratio).add_(mean)
        output.append(changed)
    return torch.stack(output)


def adjust_contrast(
    image: Shaped[Tensor, "channel *spatial"], *, factor: float, keeps_range: bool = True
) -> Float[Tensor, "channel *spatial"]:
    r"""Image with values spread about the mean of their channel: :math:`\mu + f (x - \mu)`.

    Args:
        image: Of any type.
        factor: :math:`f`; below 1 there is less contrast.
        keeps_range: Whether values beyond the old least and largest are clipped to these.

    Returns:
        The image in float32, or float64 if it was.

    Example:
        >>> import torch
        >>> adjust_contrast(torch.tensor([[0.0, 1.0, 5.0]]), factor=0.5)
        tensor([[1.0000, 1.5000, 3.5000]])
    """
    check.real("factor", factor)
    output: list[Tensor] = []
    for channel in as_float(image):
        mean = channel.mean()
        changed = (channel * factor).add_(mean * (1 - factor))
        if keeps_range:
            low, high = channel.aminmax()
            changed.clamp_(low, high)
        output.append(changed)
    return torch.stack(output)


def gaussian_blur(
    image: Shaped[Tensor, "channel *spatial"],
    *,
    sigma: float | Sequence[float],
    truncate: float = 4.0,
) -> Float[Tensor, "channel *spatial"]:
    """Image smoothed by a Gaussian, mirrored at the edge like SciPy's ``gaussian_filter``.

    Args:
        image: Of any type.
        sigma: Standard deviation in voxels, one number or one for each spatial axis; 0 leaves an
            axis.
        truncate: Where the Gaussian is cut off, in standard deviations; 2 with a ``sigma`` of 1 is
            a kernel of five voxels.

    Returns:
        The image in float32, or float64 if it was.

    Raises:
        ValueError: If ``sigma`` is negative or ``truncate`` is not positive.

    Example:
        >>> import torch
        >>> gaussian_blur(torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]), sigma=0.5)[0, 2]
        tensor(0.7866)
    """
    values = as_float(image)
    sigmas = check.per_axis("sigma", sigma, image.ndim - 1)
    check.positive("truncate", truncate)
    output = values
    for axis, width in enumerate(sigmas, start=1):
        if check.non_negative("sigma", width) > 0:
            output = _blurred(output, axis, float(width), truncate)
    return output.clone() if output is image else output


def simulate_low_resolution(
    image: Shaped[Tensor, "channel *spatial"], *, zoom: float | Sequence[float]
) -> Float[Tensor, "channel *spatial"]:
    """Image as if it had been taken with fewer voxels: every n-th is kept, then interpolated.

    Args:
        image: Of any type.
        zoom: Share of the voxels along each axis that is kept, in (0, 1]; one number for all.

    Returns:
        The image in float32, or float64 if it was; of the same size.

    Raises:
        ValueError: If ``zoom`` is outside of (0, 1].

    Example:
        >>> import torch
        >>> simulate_low_resolution(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), zoom=0.5)
        tensor([[1.0000, 1.5000, 2.5000, 3.0000]])
    """
    values = as_float(image)
    output = values
    zooms = check.per_axis("zoom", zoom, image.ndim - 1)
    sizes = [max(1, round(n * z)) for n, z in zip(image.shape[1:], zooms, strict=True)]
    for share in zooms:
        if not 0 < share <= 1:
            raise check.fail("zoom", "in (0, 1]", zoom)
    for axis, (old, new) in enumerate(zip(image.shape[1:], sizes, strict=True), start=1):
        kept = ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new).floor().long()
        output = output.index_select(axis, kept.to(image.device)) if new < old else output
    if output is image:
        return output.clone()
    if len(sizes) > len(_MODES):
        return resample(output[None], size=image.shape[1:], mode="linear")[0]
    mode = _MODES[len(sizes) - 1]
    return F.interpolate(output[None], size=image.shape[1:], mode=mode)[0]


def _counted_moments(
    image: Tensor, values: Tensor, *, nonzero: bool
) -> tuple[Tensor, Tensor] | None:
    """Return mean and deviation of what counts, None if nothing does; bytes by their histogram."""
    if image.dtype != torch.uint8:
        counted = values[values != 0] if nonzero else values
        return _moments(counted) if counted.numel() else None
    counts = torch.bincount(image.flatten(), minlength=256).double()
    counts[0] *= not nonzero
    total, level = counts.sum(), torch.arange(256, dtype=torch.float64, device=image.device)
    if not total:
        return None
    mean = counts @ level / total
    return mean.float(), (counts @ (level - mean).square() / total).sqrt().float()


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation; the type of the image is float32 or wider."""
    return values.mean(), values.var(correction=0).sqrt()  # faster than torch.std_mean


def _percentile(values: Tensor, q: float) -> float:
    place = q / 100 * (len(values) - 1)
    low = math.floor(place)
    below = float(values.kthvalue(low + 1).values)
    if low == place:
        return below
    return below + (place - low) * (float(values.kthvalue(low + 2).values) - below)


def _blurred(image: Tensor, axis: int, sigma: float, truncate: float) -> Tensor:
    """Return the weighted sum of shifted images, mirrored at the edges."""
    count = image.shape[axis]
    radius = int(truncate * sigma + 0.5)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weight = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights = [float(w) for w in weight / weight.sum()]
    index = torch.arange(-radius, count + radius, device=image.device) % (2 * count)
    padded = image.index_select(axis, torch.minimum(index, 2 * count - 1 - index))
    output = padded.narrow(axis, radius, count) * weights[radius]
    for step in range(radius):
        output.add_(padded.narrow(axis, step, count), alpha=weights[step])
        output.add_(padded.narrow(axis, 2 * radius - step, count), alpha=weights[step])
    return output
