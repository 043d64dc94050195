"""Weights of a convolution network for images, made to fit its twin for volumes."""

from collections.abc import Iterable, Mapping
from typing import Literal, cast

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from medkit._core import check

Method = Literal["average", "centre"]


def inflate_weights(
    weights: Mapping[str, Shaped[Tensor, "..."]],
    module: nn.Module,
    *,
    method: Method = "average",
) -> dict[str, Shaped[Tensor, "..."]]:
    r"""Return weights of a network for images as weights of the same network for volumes.

    .. math::
        \text{average: } w_{d,i,j} = \frac{s}{k} w_{i,j}, \qquad
        \text{centre: } w_{d,i,j} = w_{i,j}\, [d = (k - 1) / 2]

    with a kernel of ``k`` along depth; ``s`` is 1, and the stride in a transposed convolution.
    Averaged, a volume of equal slices gives the maps of the image, but for the zeros beyond its
    ends; centred, each slice gives its own map, as if it were an image. Transposed convolutions
    are averaged either way, so that every slice is filled. Use it to start a network for volumes
    from weights trained on images: ``module.load_state_dict(inflate_weights(weights, module))``.

    Args:
        weights: State of the network for images.
        module: The network for volumes, with the same names; its own weights stay as they are.
        method: How a kernel is spread along depth.

    Returns:
        A state for ``module``, with all its names.

    Raises:
        ValueError: If names differ, or a tensor does not fit with or without a depth.

    Example:
        >>> import torch
        >>> flat, deep = torch.nn.Conv2d(1, 1, 3), torch.nn.Conv3d(1, 1, 3)
        >>> state = inflate_weights(flat.state_dict(), deep)
        >>> torch.allclose(state["weight"].sum(2), flat.weight)
        True

    References:
        J. Carreira, A. Zisserman. Quo Vadis, Action Recognition? A New Model and the Kinetics
        Dataset. CVPR 2017, section 2.4 (average).
        R. Girdhar, G. Gkioxari, L. Torresani, M. Paluri, D. Tran. Detect-and-Track: Efficient
        Pose Estimation in Videos. CVPR 2018, section 3.2 (centre).
    """
    check.one_of("method", method, ("average", "centre"))
    state = module.state_dict()
    differing = sorted(set(weights) ^ set(state))
    if differing:
        raise check.fail("weights", "named as in module", f"{differing[0]!r} in one of them alone")
    strides = {
        f"{name}.weight".removeprefix("."): part.stride[0]
        for name, part in cast("Iterable[tuple[str, nn.Module]]", module.named_modules())
        if isinstance(part, nn.ConvTranspose3d)
    }
    return {
        name: _inflate(name, weights[name], state[name], method, strides.get(name))
        for name in state
    }


def _inflate(
    name: str, weight: Tensor, like: Tensor, method: Method, upsampling: int | None
) -> Tensor:
    """Return a weight in the shape of another, with a depth if that has one more axis."""
    if weight.shape == like.shape:
        return weight.clone()
    without_depth = (*like.shape[:2], *like.shape[3:])
    if like.ndim != 5 or tuple(weight.shape) != without_depth:
        shapes = f"{tuple(weight.shape)} for {tuple(like.shape)}"
        raise check.fail(f"weights[{name!r}]", "of the module's shape without depth", shapes)
    depth = like.shape[2]
    if method == "average" or upsampling is not None:
        factor = (1 if upsampling is None else upsampling) / depth
        return (weight * factor)[:, :, None].expand(like.shape).clone()
    if depth % 2 == 0:
        raise check.fail("method", "'average' for a kernel of even depth", f"'centre' at {name!r}")
    inflated = torch.zeros_like(like, dtype=weight.dtype, device=weight.device)
    inflated[:, :, depth // 2] = weight
    return inflated
