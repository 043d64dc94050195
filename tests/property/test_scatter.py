"""Laws of grouping: order of values, names of groups, and what sums add up to."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from medkit.ops import scatter_max, scatter_mean, scatter_min, scatter_sum, segment_mean
from medkit.testing import assert_close

GROUPS = 6
ITEMS = st.lists(
    st.tuples(st.integers(-1000, 1000), st.integers(0, GROUPS - 1)), min_size=1, max_size=40
)


def _tensors(items: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    values, index = zip(*items, strict=True)
    return torch.tensor(values, dtype=torch.float64), torch.tensor(index)


@given(items=ITEMS, order=st.randoms(use_true_random=False))
def test_order_of_the_values_does_not_matter(items, order) -> None:
    shuffled = order.sample(items, len(items))

    for reduction in (scatter_sum, scatter_mean, scatter_min, scatter_max):
        one, other = (reduction(*_tensors(i), dim_size=GROUPS) for i in (items, shuffled))
        one, other = (r.values if isinstance(r, tuple) else r for r in (one, other))
        assert torch.equal(one, other)


@given(items=ITEMS, names=st.permutations(range(GROUPS)))
def test_renaming_groups_permutes_the_result(items, names) -> None:
    x, index = _tensors(items)
    names = torch.tensor(names)

    renamed = scatter_mean(x, names[index], dim_size=GROUPS)

    assert torch.equal(renamed[names], scatter_mean(x, index, dim_size=GROUPS))


@given(items=ITEMS)
def test_sums_add_up_and_means_lie_between_extrema(items) -> None:
    x, index = _tensors(items)

    total = scatter_sum(x, index)
    mean, low, high = (f(x, index) for f in (scatter_mean, scatter_min, scatter_max))

    assert total.sum() == x.sum()
    assert bool((low.values <= mean + 1e-9).all())
    assert bool((mean <= high.values + 1e-9).all())
    filled = low.indices < len(items)
    assert torch.equal(x[low.indices[filled]], low.values[filled])
    assert torch.equal(index[low.indices[filled]], filled.nonzero().squeeze(1))


@given(items=ITEMS)
def test_sorted_values_may_take_the_segment_path(items) -> None:
    x, index = _tensors(sorted(items, key=lambda item: item[1]))

    assert_close(segment_mean(x, index), scatter_mean(x, index))
