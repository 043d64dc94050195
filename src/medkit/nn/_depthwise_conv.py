"""Depthwise convolution with an odd kernel and a backward pass that is fast on a CPU.

PyTorch's own gradients of a depthwise 3-D convolution take about thirty times as long as its
forward pass on a CPU, and bfloat16 and float16 ten to a hundred times as long as float32. Both
gradients are convolutions for which it has fast kernels:

* to the input, the depthwise convolution of the output's gradient with the mirrored kernel;
* to the weight, for each plane of the kernel, the gradient of a 2-D convolution that takes the
  depth slices as samples.

Both, and the forward pass, are two to three times as fast in channels-last memory. With a stride
the gradients are PyTorch's own.
"""

from typing import Protocol, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from medkit.ops import channels_first, channels_last

from ._precision import at_least_float32, without_autocast


class DepthwiseConv(nn.Module):
    """One 3x3(x3) kernel for each channel, zeros around the image; the caller draws the weights."""

    def __init__(
        self,
        dim: int,
        *,
        spatial_dims: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        shape = (dim, 1, *(3,) * spatial_dims)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(dim, device=device, dtype=dtype))

    def forward(
        self, input: Float[Tensor, "batch channel *grid"]
    ) -> Float[Tensor, "batch channel *grid"]:
        """Return the weighted sums of neighbours."""
        return depthwise_conv(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Show the shape of the weight."""
        return "x".join(map(str, self.weight.shape))


def depthwise_conv(
    input: Float[Tensor, "batch channel *grid"],
    weight: Float[Tensor, "channel one *kernel"],
    bias: Float[Tensor, " channel"] | None,
    *,
    stride: int = 1,
) -> Float[Tensor, "batch channel *coarser"]:
    """Return the convolution of each channel with its odd kernel, zeros around the image."""
    if input.ndim == 5 and input.device.type == "cpu":
        wide = at_least_float32(input.dtype)
        memory = channels_first(channels_last(input.to(wide)).contiguous())
        wide_bias = None if bias is None else bias.to(wide)
        with without_autocast(input.device):
            if stride > 1:
                return _plain(memory, weight.to(wide), wide_bias, stride).to(input.dtype)
            output: object = _DepthwiseConv3d.apply(memory, weight.to(wide), wide_bias)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  untyped in torch
            return cast("Tensor", output).to(input.dtype)
    dtype = input.dtype
    return _plain(input, weight.to(dtype), None if bias is None else bias.to(dtype), stride)


def _plain(image: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    padding = [size // 2 for size in weight.shape[2:]]
    conv = F.conv3d if image.ndim == 5 else F.conv2d
    return conv(image, weight, bias, stride=stride, padding=padding, groups=weight.shape[0])


class _Kept(Protocol):
    """What autograd gives back to the backward pass; torch types these as single values."""

    saved_tensors: tuple[Tensor, Tensor]
    needs_input_grad: tuple[bool, bool, bool]


class _DepthwiseConv3d(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _plain(image, weight, bias, 1)

    @staticmethod
    def setup_context(
        ctx: object, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor
    ) -> None:
        del output
        cast("FunctionCtx", ctx).save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        kept, (grad,) = cast("_Kept", ctx), grads
        image, weight = kept.saved_tensors
        needs_image, needs_weight, needs_bias = kept.needs_input_grad
        mirrored = weight.flip(2, 3, 4)
        return (
            _plain(grad, mirrored, None, 1) if needs_image else None,
            _weight_gradient(image, weight, grad) if needs_weight else None,
            grad.sum((0, 2, 3, 4)) if needs_bias else None,
        )


def _weight_gradient(image: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    depth = image.shape[2]
    padding = [size // 2 for size in weight.shape[3:]]
    planes: list[Tensor] = []
    for plane, kernel in enumerate(weight.unbind(2)):
        offset = plane - weight.shape[2] // 2
        overlap = depth - abs(offset)
        if overlap <= 0:  # the plane only ever meets the zeros around the image
            planes.append(torch.zeros_like(kernel))
            continue
        part = _slices_as_samples(image.narrow(2, max(offset, 0), overlap))
        part_grad = _slices_as_samples(grad.narrow(2, max(-offset, 0), overlap))
        _, plane_grad, _ = torch.ops.aten.convolution_backward(
            part_grad,
            part,
            kernel,
            None,
            [1, 1],
            padding,
            [1, 1],
            False,
            [0, 0],
            len(weight),
            [False, True, False],
        )
        planes.append(plane_grad)
    return torch.stack(planes, dim=2)


def _slices_as_samples(input: Tensor) -> Tensor:
    return channels_first(channels_last(input).flatten(0, 1))
