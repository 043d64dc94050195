"""How strongly a map changes from one position to the next."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from medkit._core import check

from ._precision import at_least_float32


def sobel_magnitude(
    input: Float[Tensor, "batch channel *size"],
) -> Float[Tensor, "batch 1 height width"]:
    r"""Return the length of the gradient of an image, over all its channels.

    .. math:: e = \sqrt{\tfrac{1}{C} \sum_c (S_y * x_c)^2 + (S_x * x_c)^2}

    with the Sobel kernels divided by 8, so that a ramp of one per pixel gives 1, and the border
    repeated. It is the default edge image of ``HybridAttentionUNet``; its gradient is finite
    everywhere, and 0 where nothing changes. Computed in float32 or better.

    Args:
        input: Image or feature map.

    Raises:
        ValueError: If the input is not ``(batch, channel, height, width)``.

    Example:
        >>> import torch
        >>> ramp = torch.arange(5.0).expand(1, 1, 4, 5)
        >>> sobel_magnitude(ramp)[0, 0, 0]
        tensor([0.5000, 1.0000, 1.0000, 1.0000, 0.5000])

    References:
        I. Sobel, G. Feldman. A 3x3 Isotropic Gradient Operator for Image Processing. Stanford
        Artificial Intelligence Project, 1968.
    """
    if input.ndim != 4:
        raise check.fail("input", "(batch, channel, height, width)", f"shape {tuple(input.shape)}")
    padded = F.pad(input.to(at_least_float32(input.dtype)), (1, 1, 1, 1), mode="replicate")
    vertical = _smooth(padded[..., 2:, :] - padded[..., :-2, :], -1)
    horizontal = _smooth(padded[..., :, 2:] - padded[..., :, :-2], -2)
    both = torch.cat((vertical, horizontal), 1) / (8 * input.shape[1] ** 0.5)
    return both.norm(dim=1, keepdim=True).to(input.dtype)


def _smooth(difference: Tensor, axis: int) -> Tensor:
    """Return the sums of three neighbours along an axis, with weights 1, 2, 1."""
    n = difference.shape[axis] - 2
    before, here, after = (difference.narrow(axis, start, n) for start in range(3))
    return before + 2 * here + after
