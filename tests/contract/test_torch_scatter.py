"""The scatter operations beside torch_scatter itself."""

import pytest
import torch

from medkit.ops import scatter_max, scatter_mean, scatter_min, scatter_sum

torch_scatter = pytest.importorskip("torch_scatter")

PAIRS = {
    "sum": (scatter_sum, torch_scatter.scatter_sum),
    "mean": (scatter_mean, torch_scatter.scatter_mean),
    "min": (scatter_min, torch_scatter.scatter_min),
    "max": (scatter_max, torch_scatter.scatter_max),
}
LAYOUTS = [  # shape of src, shape of index, dim
    ((5000,), (5000,), -1),
    ((700, 5), (700,), 0),
    ((5, 700), (700,), 1),
    ((3, 200, 4), (200,), -2),
    ((3, 200, 4), (3, 200), 1),
    ((3, 200, 4), (1, 200, 1), 1),
    ((3, 40, 4), (3, 40, 4), 0),
    ((40, 4), (40, 4), -1),
]
DTYPES = [torch.float32, torch.float64, torch.int64, torch.int32]


def _pair(result):
    return tuple(result) if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PAIRS)
def test_results_are_equal_to_the_last_bit(name: str, layout, dtype: torch.dtype) -> None:
    ours, theirs = PAIRS[name]
    shape, index_shape, dim = layout
    src = (torch.randn(shape, dtype=torch.float64) * 50).to(dtype)
    index = torch.randint(0, 30, index_shape)

    for options in ({}, {"dim_size": 37}):
        result = _pair(ours(src, index, dim, **options))
        expected = _pair(theirs(src, index, dim, **options))

        assert [r.dtype for r in result] == [e.dtype for e in expected]
        assert all(torch.equal(r, e) for r, e in zip(result, expected, strict=True))


@pytest.mark.parametrize("name", ["min", "max"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_extrema_of_half_precision_are_equal(name: str, dtype: torch.dtype) -> None:
    ours, theirs = PAIRS[name]
    src, index = torch.randn(300).to(dtype), torch.randint(0, 9, (300,))

    assert all(map(torch.equal, ours(src, index), theirs(src, index)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PAIRS)
def test_gradients_are_equal_with_ties(name: str, layout) -> None:
    ours, theirs = PAIRS[name]
    shape, index_shape, dim = layout
    src = torch.randint(0, 4, shape).float().requires_grad_()
    index = torch.randint(0, 30, index_shape)
    upstream = torch.randn_like(_pair(ours(src, index, dim))[0])

    gradients = [
        torch.autograd.grad(_pair(f(src, index, dim))[0], src, upstream)[0] for f in (ours, theirs)
    ]

    assert torch.equal(*gradients)


@pytest.mark.parametrize("name", PAIRS)
def test_empty_groups_and_empty_input_have_the_same_values(name: str) -> None:
    ours, theirs = PAIRS[name]
    for src, index in (
        (torch.randn(4), torch.tensor([7, 2, 2, 9])),
        (torch.randn(0), torch.zeros(0, dtype=torch.long)),
    ):
        result, expected = ours(src, index, dim_size=11), theirs(src, index, dim_size=11)
        assert all(map(torch.equal, _pair(result), _pair(expected)))


def test_what_torch_scatter_gets_wrong_is_right_here() -> None:
    """Pin the stated differences: a new torch_scatter that mends them fails this test."""
    index = torch.zeros(300, dtype=torch.long)
    small = torch.full((300,), 5, dtype=torch.int16).to(torch.int8)
    once = torch.tensor([[0], [1]])
    endless = torch.tensor([torch.inf, torch.inf])

    assert torch_scatter.scatter_mean(torch.ones(2, 4), once, 1)[0, 0] == 4
    assert scatter_mean(torch.ones(2, 4), once, 1)[0, 0] == 1
    assert torch_scatter.scatter_min(endless, index[:2])[0] == 0
    assert scatter_min(endless, index[:2]).values == torch.inf
    assert torch_scatter.scatter_mean(small, index) != scatter_mean(small.long(), index)
