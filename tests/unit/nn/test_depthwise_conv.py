"""The fast depthwise convolution has the values and the gradients of PyTorch's."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medkit.nn._depthwise_conv import DepthwiseConv, depthwise_conv
from medkit.testing import assert_close

SHAPES = [(2, 3, 5, 4, 6), (1, 2, 1, 1, 1), (1, 2, 2, 3, 1), (2, 3, 6, 5)]


def plain(image: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    conv = F.conv3d if image.ndim == 5 else F.conv2d
    padding = weight.shape[-1] // 2
    return conv(image, weight, bias, stride=stride, padding=padding, groups=len(weight))


def tensors(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float64, *, kernel_size: int = 3
) -> list[Tensor]:
    channels, kernel = shape[1], (kernel_size,) * (len(shape) - 2)
    shapes = (shape, (channels, 1, *kernel), (channels,))
    return [torch.randn(s, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def gradients(
    conv: Callable[..., Tensor], given: list[Tensor], weight: Tensor
) -> tuple[Tensor, ...]:
    return torch.autograd.grad((conv(*given) * weight).sum(), given)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_pytorch(
    shape: tuple[int, ...], channels_last: bool
) -> None:
    given = tensors(shape)
    if channels_last:
        image = given[0].detach().movedim(1, -1).contiguous().movedim(-1, 1)
        given[0] = image.requires_grad_()
    weight = torch.randn(shape, dtype=torch.float64)

    assert_close(depthwise_conv(*given), plain(*given))
    found, expected = (gradients(conv, given, weight) for conv in (depthwise_conv, plain))
    for ours, theirs, name in zip(found, expected, ("image", "weight", "bias"), strict=True):
        assert_close(ours, theirs, message=name)


@pytest.mark.parametrize("kernel_size", [1, 5, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_may_be_larger_than_the_image(shape: tuple[int, ...], kernel_size: int) -> None:
    given = tensors(shape, kernel_size=kernel_size)
    weight = torch.randn(shape, dtype=torch.float64)

    assert_close(depthwise_conv(*given), plain(*given))
    found, expected = (gradients(conv, given, weight) for conv in (depthwise_conv, plain))
    for ours, theirs, name in zip(found, expected, ("image", "weight", "bias"), strict=True):
        assert_close(ours, theirs, message=name)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_stride_and_no_bias(stride: int) -> None:
    image, weight, _ = tensors((2, 3, 7, 4, 6), kernel_size=5)

    found = depthwise_conv(image, weight, None, stride=stride)
    expected = plain(image, weight, None, stride)

    assert_close(found, expected)
    for a, e in zip(
        torch.autograd.grad(found.square().sum(), [image, weight]),
        torch.autograd.grad(expected.square().sum(), [image, weight]),
        strict=True,
    ):
        assert_close(a, e)


def test_gradients_of_gradients_are_right() -> None:
    given = tuple(tensors((1, 2, 3, 4, 2)))

    assert torch.autograd.gradgradcheck(depthwise_conv, given)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_one_gradient_can_be_asked_for(wanted: int) -> None:
    given = tensors((1, 2, 4, 3, 3))
    expected = gradients(plain, given, torch.ones(1, 2, 4, 3, 3, dtype=torch.float64))[wanted]
    for index, tensor in enumerate(given):
        tensor.requires_grad_(index == wanted)

    depthwise_conv(*given).sum().backward()

    assert [tensor.grad is not None for tensor in given] == [i == wanted for i in range(3)]
    assert given[wanted].grad is not None
    assert_close(given[wanted].grad, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_once(dtype: torch.dtype) -> None:
    given = tensors((2, 3, 5, 4, 6), dtype)

    y = depthwise_conv(*given)

    assert y.dtype == dtype
    assert torch.equal(y, depthwise_conv(*(t.float() for t in given)).to(dtype))
    assert all(g.dtype == dtype for g in gradients(depthwise_conv, given, torch.ones_like(y)))


def test_autocast_keeps_the_precision_of_the_sums() -> None:
    given = tensors((2, 3, 5, 4, 6), torch.float32)

    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise_conv(*given)

    assert torch.equal(y, depthwise_conv(*given))


def test_members_of_an_ensemble_can_be_mapped() -> None:
    given = [torch.randn(4, *t.shape, dtype=torch.float64) for t in tensors((2, 3, 5, 4, 6))]

    found = torch.func.vmap(depthwise_conv)(*given)

    assert_close(found, torch.stack([plain(*member) for member in zip(*given, strict=True)]))


def test_repr_shows_the_shape() -> None:
    assert repr(DepthwiseConv(8, spatial_dims=3)) == "DepthwiseConv(8x1x3x3x3)"
