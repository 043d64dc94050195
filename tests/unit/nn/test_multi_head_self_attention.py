"""Self-attention over a grid: the formula in NumPy, and what it keeps and builds in memory."""

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

import medkit.nn
from medkit.nn import MultiHeadSelfAttention3D
from medkit.testing import assert_close
from unit.nn.blocks import attention_by_formula, image_of, settled, tokens_of


@pytest.mark.parametrize("grid", [(5, 3), (2, 4, 3), (1, 1, 1)])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_equals_the_formula(grid: tuple[int, ...], heads: int, qkv_bias: bool) -> None:
    kind = getattr(medkit.nn, f"MultiHeadSelfAttention{len(grid)}D")
    block = settled(kind(6, num_heads=heads, qkv_bias=qkv_bias)).double()
    x = torch.randn(2, 6, *grid, dtype=torch.float64)

    for sample, found in zip(x, block(x), strict=True):
        expected = attention_by_formula(tokens_of(sample), block, heads)
        assert_close(found, image_of(expected, sample))


def test_moving_positions_moves_the_output() -> None:
    block = settled(MultiHeadSelfAttention3D(8, num_heads=2)).double()
    x = torch.randn(1, 8, 3, 4, 2, dtype=torch.float64)

    assert_close(block(x.flip(2, 4)), block(x).flip(2, 4))


def largest_allocation(block: torch.nn.Module, x: Tensor) -> tuple[int, int]:
    """Return the bytes of the largest piece of memory that a training step asks for, and saves."""
    saved: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor.nbytes)
        return tensor

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        with saved_tensors_hooks(note, lambda tensor: tensor):
            y = block(x)
        y.sum().backward()
    events = prof.profiler.kineto_results.events()
    return max(event.nbytes() for event in events if event.name() == "[memory]"), sum(saved)


def test_the_matrix_of_weights_is_never_built() -> None:
    """32^3 tokens: the matrix has 4.3 GB; nothing above a few maps is asked for, or kept."""
    block = MultiHeadSelfAttention3D(4, num_heads=1)
    x = torch.randn(1, 4, 32, 32, 32, requires_grad=True)
    map_bytes = x.nbytes

    largest, saved = largest_allocation(block, x)

    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert map_bytes < largest < 16 * map_bytes
    assert saved < 16 * map_bytes


def test_the_memory_test_sees_a_matrix() -> None:
    """The same measure on the formula as it is written."""

    class Plain(MultiHeadSelfAttention3D):
        def forward(self, input: Tensor) -> Tensor:
            q, k, v = self.qkv(input.flatten(2).mT).chunk(3, dim=-1)
            return self.proj((q @ k.mT).softmax(-1) @ v)

    x = torch.randn(1, 4, 8, 8, 8, requires_grad=True)

    largest, saved = largest_allocation(Plain(4, num_heads=1), x)

    assert largest == 512 * 512 * 4
    assert saved > 512 * 512 * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "channels must be divisible by num_heads=5; got 8"),
        ({"num_heads": 0}, "num_heads must be at least 1; got 0"),
        ({"channels": 0}, "channels must be at least 1; got 0"),
    ],
)
@pytest.mark.parametrize(
    "name",
    ["MultiHeadSelfAttention", "WindowAttention", "AxialAttention", "SpatialReductionAttention"],
)
def test_wrong_arguments_are_named(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(medkit.nn, f"{name}3D")(**{"channels": 8, "num_heads": 2, **options})
