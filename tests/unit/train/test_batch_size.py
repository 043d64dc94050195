"""The search finds the edge and leaves nothing changed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medkit.train import find_batch_size, rng_state
from medkit.train._batch_size import _search


@given(edge=st.integers(0, 300), start=st.integers(1, 9), limit=st.integers(9, 300))
def test_the_edge_is_found(edge: int, start: int, limit: int) -> None:
    tried = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= edge

    largest, failed = _search(fits, start, limit)

    assert largest == (0 if edge < start else min(edge, limit))
    assert failed == (edge < limit)
    assert len(tried) <= 2 * (limit.bit_length() + 1)


@pytest.mark.parametrize(("edge", "largest", "chosen"), [(0, 0, 0), (1, 1, 1), (25, 25, 22)])
def test_the_report_says_what_was_tried(edge: int, largest: int, chosen: int) -> None:
    def try_step(size: int) -> None:
        if size > edge:
            raise torch.OutOfMemoryError

    report = find_batch_size(try_step, limit=64)

    assert (report.largest, report.batch_size) == (largest, chosen)
    assert all(trial.fits == (trial.batch_size <= edge) for trial in report.trials)


def test_safety_counts_only_where_something_failed() -> None:
    def never(size: int) -> None:
        del size

    def above_ten(size: int) -> None:
        if size > 10:
            raise MemoryError

    assert find_batch_size(never, limit=40, safety=0.5).batch_size == 40
    assert find_batch_size(above_ten, limit=40, safety=0.5).batch_size == 5


def test_model_optimizer_and_random_state_are_as_before() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(size: int) -> None:
        if size > 6:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        model(torch.randn(size, 3)).sum().backward()
        optimizer.step()

    step(2)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    moments = [s["exp_avg"].clone() for s in optimizer.state_dict()["state"].values()]
    random = rng_state()

    report = find_batch_size(
        step, start=2, limit=64, restore={"model": model, "optimizer": optimizer}
    )

    assert report.largest == 6
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    states = optimizer.state_dict()["state"].values()
    assert all(torch.equal(s["exp_avg"], m) for s, m in zip(states, moments, strict=True))
    assert all(torch.equal(value, random[name]) for name, value in rng_state().items())


def test_another_error_goes_through_and_still_restores() -> None:
    model = nn.Linear(1, 1)
    before = model.weight.clone()

    def step(size: int) -> None:
        nn.init.zeros_(model.weight)
        raise RuntimeError(f"no such layer for {size}")

    with pytest.raises(RuntimeError, match="no such layer"):
        find_batch_size(step, limit=4, restore={"model": model})
    assert torch.equal(model.weight, before)


@pytest.mark.usefixtures("unhooked")
def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="limit must be at least 8; got 4"):
        find_batch_size(lambda _: None, start=8, limit=4)
    with pytest.raises(ValueError, match="safety must be positive; got 0"):
        find_batch_size(lambda _: None, limit=4, safety=0)
