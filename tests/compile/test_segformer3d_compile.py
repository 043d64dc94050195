"""SegFormer3D is one graph for the compiler and for export, at fixed and at free sizes."""

import copy

import pytest
import torch
from torch import Tensor, nn

from medkit.nn import SegFormer3D
from medkit.testing import assert_close
from unit.nn.segformers import TINY, filled

# the compiler of PyTorch 2.13 makes such an instance for every autograd function it meets
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


def tiny(profile: str, *, checkpoint: bool = False) -> SegFormer3D:
    options = {**TINY, "depths": (1, 1, 1, 1), "drop_path_rate": 0.0}
    return filled(SegFormer3D(2, 3, **options, profile=profile, checkpoint=checkpoint))


def step(model: nn.Module, x: Tensor) -> Tensor:
    y = model(x)
    y.square().mean().backward()
    return y


@pytest.mark.parametrize(
    ("profile", "checkpoint", "backend"),
    [("segformer3d", False, "aot_eager"), ("medicai", True, "eager")],
)
def test_a_training_step_compiles_to_one_graph(
    profile: str, checkpoint: bool, backend: str
) -> None:
    torch.compiler.reset()
    model = tiny(profile, checkpoint=checkpoint).train()
    twin, x = copy.deepcopy(model), torch.randn(2, 2, 32, 33, 40)

    y = step(torch.compile(model, fullgraph=True, backend=backend), x)

    assert_close(y, step(twin, x), atol=1e-5, rtol=1e-5)
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5 * float(b.grad.abs().max()), message=name)
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert_close(a, b, message=name)


def test_exports_with_free_sizes() -> None:
    model = tiny("segformer3d").eval()
    free = {
        axis: torch.export.Dim(name, min=smallest, max=256)
        for axis, name, smallest in ((2, "d", 33), (3, "h", 33), (4, "w", 33))
    }

    with torch.no_grad():
        program = torch.export.export(
            model, (torch.randn(2, 2, 33, 40, 35),), dynamic_shapes=(free,)
        )
        for size in ((2, 2, 33, 64, 50), (2, 2, 64, 40, 41)):
            x = torch.randn(size)
            assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)
