"""The instance norm of the blocks is PyTorch's, in any memory layout."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from medkit.nn._norm import INSTANCE_NORM
from medkit.testing import assert_close


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


LAYOUTS = {
    "channels first": Tensor.contiguous,
    "channels last": channels_last,
    "some of the channels": lambda x: channels_last(torch.cat([x, x], 1))[:, : x.shape[1]],
    "one of the samples": lambda x: channels_last(x)[0][None],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 2, 5), (1, 1, 4, 2, 5)])
def test_values_and_gradients_are_those_of_pytorch(layout: str, shape: tuple[int, ...]) -> None:
    kind = nn.InstanceNorm2d if len(shape) == 4 else nn.InstanceNorm3d
    ours = INSTANCE_NORM[len(shape) - 2](shape[1], dtype=torch.float64)
    theirs = partial(kind, affine=True)(shape[1], dtype=torch.float64)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    theirs.load_state_dict(ours.state_dict())
    x = LAYOUTS[layout](torch.randn(shape, dtype=torch.float64))
    weight = torch.randn(x.shape, dtype=torch.float64)
    plain = x.contiguous().clone(memory_format=torch.contiguous_format).requires_grad_()
    given = x.requires_grad_()

    y, expected = ours(given), theirs(plain)

    assert_close(y, expected)
    found, wanted = (
        torch.autograd.grad((out * weight).sum(), [image, *norm.parameters()])
        for out, image, norm in ((y, given, ours), (expected, plain, theirs))
    )
    for a, e in zip(found, wanted, strict=True):
        assert_close(a, e)
