"""Scatter and segment reductions: golden numbers of torch_scatter, a loop in NumPy, the edges."""

from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from medkit.ops import (
    scatter_max,
    scatter_mean,
    scatter_min,
    scatter_sum,
    segment_mean,
    segment_sum,
)
from medkit.testing import assert_close

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "scatter" / "scatter.npz")
PROBLEMS = sorted({key.split(".")[0] for key in GOLDEN.files})
REDUCTIONS = {"sum": scatter_sum, "mean": scatter_mean, "min": scatter_min, "max": scatter_max}


@pytest.fixture
def _unchecked_shapes() -> Iterator[None]:
    """Let wrong types through the annotations, to reach the checks that users have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def _values(result):
    return result.values if isinstance(result, tuple) else result


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_golden_values_are_equal_to_the_last_bit(problem: str, reduction: str) -> None:
    src = torch.from_numpy(GOLDEN[f"{problem}.src"])
    index = torch.from_numpy(GOLDEN[f"{problem}.index"])
    dim_size = int(GOLDEN[f"{problem}.dim_size"]) if f"{problem}.dim_size" in GOLDEN else None

    result = REDUCTIONS[reduction](src, index, int(GOLDEN[f"{problem}.dim"]), dim_size)

    expected = torch.from_numpy(GOLDEN[f"{problem}.{reduction}"])
    assert _values(result).dtype == expected.dtype
    assert torch.equal(_values(result), expected)
    if isinstance(result, tuple):
        expected_indices = torch.from_numpy(GOLDEN[f"{problem}.arg{reduction}"])
        assert torch.equal(result.indices, expected_indices)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("problem", sorted(set(PROBLEMS) - {"integers"}))
def test_golden_gradients(problem: str, reduction: str) -> None:
    src = torch.from_numpy(GOLDEN[f"{problem}.src"]).requires_grad_()
    index = torch.from_numpy(GOLDEN[f"{problem}.index"])
    weight = torch.from_numpy(GOLDEN[f"{problem}.{reduction}.weight"])
    dim = int(GOLDEN[f"{problem}.dim"])

    values = _values(REDUCTIONS[reduction](src, index, dim, weight.shape[dim]))
    (gradient,) = torch.autograd.grad((values * weight).sum(), src)

    assert_close(gradient, GOLDEN[f"{problem}.{reduction}.gradient"], rtol=1e-6)


def test_a_loop_over_groups_gives_the_same() -> None:
    rng = np.random.default_rng(3)
    src, index = rng.normal(size=(4, 30)), rng.integers(0, 9, 30)
    x, i = torch.from_numpy(src), torch.from_numpy(index)
    groups = [src[:, index == k] for k in range(12)]
    filled = [k for k in range(12) if groups[k].size]

    assert_close(scatter_sum(x, i, 1, 12), np.stack([g.sum(1) for g in groups], 1))
    mean, smallest = scatter_mean(x, i, 1, 12), scatter_min(x, i, 1, 12).values
    assert_close(mean[:, filled], np.stack([groups[k].mean(1) for k in filled], 1))
    assert_close(smallest[:, filled], np.stack([groups[k].min(1) for k in filled], 1))
    largest = scatter_max(x, i, 1, 12)
    assert_close(largest.values[:, filled], np.stack([groups[k].max(1) for k in filled], 1))
    assert torch.equal(x.gather(1, largest.indices[:, filled]), largest.values[:, filled])


@pytest.mark.parametrize("reduction", [scatter_sum, scatter_mean, segment_sum, segment_mean])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_adds_up_in_float32(reduction, dtype: torch.dtype) -> None:
    x = torch.rand(100_000).to(dtype)
    index = torch.arange(100_000) // 50_000

    result = reduction(x * 0.01, index)

    exact = reduction((x * 0.01).double(), index)
    assert result.dtype == dtype
    assert_close(result, exact.to(dtype))


@pytest.mark.parametrize("reduction", [scatter_min, scatter_max])
def test_first_of_equal_values_takes_the_gradient(reduction) -> None:
    x = torch.tensor([5.0, 2.0, 2.0, 5.0], requires_grad=True)

    result = reduction(x, torch.zeros(4, dtype=torch.long))
    result.values.sum().backward()

    first = 1 if reduction is scatter_min else 0
    assert result.indices.tolist() == [first]
    assert x.grad is not None
    assert x.grad.tolist() == [float(k == first) for k in range(4)]


def test_nan_and_infinity_are_values() -> None:
    inf, nan = torch.inf, torch.nan
    x = torch.tensor([inf, 1.0, nan, 3.0, -inf, inf])
    index = torch.tensor([0, 1, 1, 1, 2, 2])

    smallest, largest = scatter_min(x, index), scatter_max(x, index)

    assert_close(smallest.values, torch.tensor([inf, nan, -inf]))
    assert smallest.indices.tolist() == [0, 2, 4]
    assert_close(largest.values, torch.tensor([inf, nan, inf]))
    assert largest.indices.tolist() == [0, 2, 5]


def test_count_does_not_overflow_in_small_integers() -> None:
    x = torch.full((300,), 5, dtype=torch.int64)
    index = torch.zeros(300, dtype=torch.long)

    assert scatter_mean(x, index).tolist() == [5]
    assert scatter_mean(torch.zeros(300, dtype=torch.int8), index).tolist() == [0]
    assert segment_mean(torch.tensor([-3, -4, 8]), torch.tensor([0, 0, 2])).tolist() == [-4, 0, 8]


def test_index_repeated_along_dim_counts_every_value() -> None:
    x, index = torch.ones(2, 4), torch.tensor([[0], [1]])

    assert scatter_mean(x, index, 1).tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_any_integer_type_indexes(dtype: torch.dtype) -> None:
    index = torch.tensor([0, 0, 2], dtype=dtype)

    for reduction in (scatter_sum, segment_sum):
        assert reduction(torch.ones(3), index).tolist() == [2.0, 0.0, 1.0]


def test_complex_numbers_add_up_and_average() -> None:
    x, index = torch.tensor([1 + 2j, 3 - 4j]), torch.tensor([1, 1])

    assert scatter_mean(x, index).tolist() == [0j, 2 - 1j]
    assert segment_mean(x, index).tolist() == [0j, 2 - 1j]


@pytest.mark.parametrize("reduction", [*REDUCTIONS.values(), segment_sum, segment_mean])
@pytest.mark.parametrize("dim_size", [None, 3])
def test_nothing_in_gives_empty_groups(reduction, dim_size: int | None) -> None:
    result = reduction(torch.ones(0, 2), torch.zeros(0, dtype=torch.long), dim=0, dim_size=dim_size)

    assert torch.equal(_values(result), torch.zeros(dim_size or 0, 2))
    if isinstance(result, tuple):
        assert torch.equal(result.indices, torch.zeros(dim_size or 0, 2, dtype=torch.long))


@pytest.mark.parametrize("reduction", REDUCTIONS.values())
def test_no_channel_at_all_is_fine(reduction) -> None:
    result = reduction(torch.ones(3, 0), torch.tensor([0, 1, 1]), 0)

    assert _values(result).shape == (2, 0)


@pytest.mark.parametrize("reduction", [segment_sum, segment_mean])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_segments_equal_scatter(reduction, dim: int) -> None:
    scatter = {segment_sum: scatter_sum, segment_mean: scatter_mean}[reduction]
    x = torch.randn(20, 20, 20)
    index = torch.randint(0, 6, (20,)).sort().values
    lengths = torch.bincount(index, minlength=8)

    result = reduction(x, index, dim=dim, dim_size=8)

    assert torch.equal(result, scatter(x, index, dim, 8))
    assert torch.equal(reduction(x, index, dim=dim, lengths=lengths), result)


@pytest.mark.parametrize(
    "reduction", [scatter_sum, scatter_mean, scatter_min, scatter_max, segment_sum, segment_mean]
)
def test_gradients_match_finite_differences_twice(reduction) -> None:
    x = torch.randperm(24, dtype=torch.float64).reshape(3, 8).requires_grad_()
    index = torch.tensor([0, 0, 1, 3, 3, 3, 4, 4])

    def f(x):
        return _values(reduction(x, index, dim=1, dim_size=6))

    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(f, x)


def test_arguments_are_not_written_to() -> None:
    x, index = torch.randn(6), torch.tensor([0, 1, 1, 2, 2, 2])
    kept = x.clone(), index.clone()

    for reduction in (*REDUCTIONS.values(), segment_sum, segment_mean):
        reduction(x, index)

    assert torch.equal(x, kept[0])
    assert torch.equal(index, kept[1])


def test_torch_scatters_out_is_refused_and_not_misread() -> None:
    x, index, out = torch.ones(2), torch.tensor([0, 1]), torch.zeros(2)

    with pytest.raises(TypeError, match="out"):
        scatter_sum(x, index, out=out)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("index", "options", "message"),
    [
        (torch.tensor([0, 1]), {}, r"index must be one number per position along axis 0"),
        (torch.zeros(3, 2, 1, dtype=torch.long), {}, "index must be one number per position"),
        (torch.tensor([0, 5, 1]), {"dim_size": 3}, r"in \[0, dim_size 3\); got values from 0 to 5"),
        (torch.tensor([0, -2, 1]), {}, "zero or above; got values from -2 to 1"),
        (torch.tensor([0, 1, 1]), {"dim_size": -1}, "dim_size must be at least 0; got -1"),
        (
            torch.tensor([0, 1, 1]),
            {"dim": 1},
            r"dim must be an axis of src, of shape \(3,\); got 1",
        ),
    ],
)
@pytest.mark.parametrize("reduction", [scatter_sum, scatter_min])
def test_errors_name_what_is_wrong(reduction, index, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reduction(torch.ones(3), index, **options)


@pytest.mark.parametrize("reduction", [scatter_sum, segment_sum])
def test_segments_out_of_range_are_found(reduction) -> None:
    with pytest.raises(ValueError, match=r"in \[0, dim_size 2\)"):
        reduction(torch.ones(3), torch.tensor([0, 1, 2]), dim_size=2)


def test_an_index_that_falls_is_found() -> None:
    with pytest.raises(ValueError, match="index must be in order"):
        segment_mean(torch.ones(3), torch.tensor([0, 2, 1]))


def test_lengths_that_do_not_fit_are_found() -> None:
    index = torch.tensor([0, 0, 1])

    with pytest.raises(ValueError, match=r"lengths must be of shape \(2,\); got shape \(3,\)"):
        segment_sum(torch.ones(3), index, dim_size=2, lengths=torch.tensor([2, 1, 0]))
    with pytest.raises(RuntimeError, match="lengths"):
        segment_sum(torch.ones(3), index, lengths=torch.tensor([2, 4]))


@pytest.mark.usefixtures("_unchecked_shapes")
def test_wrong_types_are_type_errors() -> None:
    with pytest.raises(TypeError, match=r"index must be of an integer type; got torch.float32"):
        scatter_sum(torch.ones(3), torch.ones(3))
    with pytest.raises(TypeError, match=r"index must be of an integer type; got torch.bool"):
        scatter_sum(torch.ones(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"src must hold numbers; got torch.bool"):
        scatter_sum(torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"index must be of one axis; got shape \(3, 1\)"):
        segment_sum(torch.ones(3), torch.zeros(3, 1, dtype=torch.long))


@pytest.mark.parametrize("reduction", [*REDUCTIONS.values(), segment_sum, segment_mean])
def test_a_compiled_graph_looks_at_no_value(monkeypatch, reduction) -> None:
    x, index = torch.rand(9), torch.arange(9) // 2
    expected = _values(reduction(x, index))
    monkeypatch.setattr(torch.compiler, "_is_compiling_flag", True)

    assert torch.equal(_values(reduction(x, index, dim_size=5)), expected)
