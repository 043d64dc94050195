"""Laws of the training parts, for any numbers."""

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medkit.testing import assert_close
from medkit.train import (
    EarlyStopping,
    History,
    ResumableLoader,
    StepInfo,
    Stepper,
    WarmupCosine,
    WarmupPoly,
    load_weights,
    rng_state,
    save_weights,
    set_rng_state,
)

rates = st.floats(1e-8, 10.0)
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=9), accumulate=st.integers(1, 5))
@settings(max_examples=40)
def test_weighted_windows_are_the_big_batch(sizes: Sequence[int], accumulate: int) -> None:
    model = nn.Linear(2, 1).double()
    parts = [torch.randn(size, 2, dtype=torch.float64) for size in sizes]
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.0), accumulate=accumulate)
    losses = []

    for x, window in stepper.micro_batches(parts):
        stepper.backward(model(x).square().mean(), weight=float(len(x)))
        if window.last:
            gradients = [p.grad.clone() / _weight(stepper) for p in model.parameters()]
            info = stepper.step()
            start = len(losses) * accumulate
            whole = model(torch.cat(parts[start : start + accumulate])).square().mean()
            for ours, exact in zip(
                gradients, torch.autograd.grad(whole, list(model.parameters())), strict=True
            ):
                assert_close(ours, exact)
            assert_close(info.loss, whole.item(), rtol=1e-12)
            losses.append(info.loss)

    assert len(losses) == math.ceil(len(sizes) / accumulate)


def _weight(stepper: Stepper) -> float:
    return sum(float(weight) for weight in stepper._weights)


@given(count=st.integers(0, 30), accumulate=st.integers(1, 8), sized=st.booleans())
def test_windows_cut_a_pass_into_full_ones_and_a_rest(
    count: int, accumulate: int, sized: bool
) -> None:
    model = nn.Linear(1, 1)
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.1), accumulate=accumulate)
    batches = list(range(count))

    seen = list(stepper.micro_batches(batches if sized else iter(batches)))

    assert [batch for batch, _ in seen] == batches
    full, rest = divmod(count, accumulate)
    expected = [(i, accumulate) for _ in range(full) for i in range(accumulate)]
    expected += [(i, rest) for i in range(rest)]
    assert [tuple(window) for _, window in seen] == expected
    assert sum(window.last for _, window in seen) == full + bool(rest)


@given(
    lr=rates, start=st.floats(0, 1), alpha=st.floats(0, 1), power=st.floats(0.1, 3),
    floor=st.floats(0, 1e-3), total=st.integers(1, 10**6), data=st.data(),
)  # fmt: skip
def test_schedules_are_their_formulas(
    lr: float,
    start: float,
    alpha: float,
    power: float,
    floor: float,
    total: int,
    data: st.DataObject,
) -> None:
    warmup = data.draw(st.integers(0, total - 1))
    steps = np.array(data.draw(st.lists(st.integers(0, 2 * total), min_size=1, max_size=20)))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    options = {"warmup_steps": warmup, "warmup_start": start}
    cosine = WarmupCosine(optimizer, total, alpha=alpha, **options)  # type: ignore[arg-type]
    poly = WarmupPoly(optimizer, total, power=power, min_lr=floor, **options)  # type: ignore[arg-type]

    u = np.clip((steps - warmup) / (total - warmup), 0, 1)
    rising = start + (lr - start) * steps / max(warmup, 1)
    exact_cosine = lr * ((1 - alpha) * (1 + np.cos(np.pi * u)) / 2 + alpha)
    exact_poly = np.maximum(floor, lr * (1 - u) ** power)

    for schedule, exact in ((cosine, exact_cosine), (poly, exact_poly)):
        ours = [schedule.lr_at(int(step))[0] for step in steps]
        assert_close(ours, np.where(steps < warmup, rising, exact), rtol=1e-9, atol=1e-15)


@given(
    values=st.lists(st.one_of(finite, st.just(math.nan)), max_size=20),
    patience=st.integers(1, 4),
    larger=st.booleans(),
)
def test_early_stopping_is_its_definition(values: list[float], patience: int, larger: bool) -> None:
    stopping = EarlyStopping(patience, mode="max" if larger else "min")

    answers = [stopping.update(value) for value in values]

    for i, answer in enumerate(answers):
        known = [-v if larger else v for v in values[: i + 1]]
        best = min((v for v in known if not math.isnan(v)), default=None)
        since = i + 1 if best is None else i - known.index(best)
        assert answer == (since >= patience)


names = st.text("abcXYZ_.0é", min_size=1, max_size=12)
dtypes = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool,
     torch.uint8, torch.complex64]
)  # fmt: skip
shapes = st.lists(st.integers(0, 4), max_size=4)


@given(spec=st.dictionaries(names, st.tuples(dtypes, shapes), min_size=1, max_size=6))
@settings(max_examples=40)
def test_any_tensors_come_back_as_they_were(
    spec: dict[str, tuple[torch.dtype, list[int]]],
) -> None:
    state = {name: torch.randn(shape).to(dtype) for name, (dtype, shape) in spec.items()}

    with tempfile.TemporaryDirectory() as folder:
        save_weights(state, f"{folder}/w.pt", metadata={"names": sorted(state)})
        back = torch.load(f"{folder}/w.pt", weights_only=True)
        report = load_weights(f"{folder}/w.pt", _Holder(state))  # type: ignore[arg-type]

    assert report.verified
    assert list(back) == list(state)
    assert all(_same(back[name], state[name]) for name in state)


class _Holder(nn.Module):
    """A module whose state is given tensors."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.state = state

    def state_dict(self) -> dict[str, Tensor]:  # type: ignore[override]
        return self.state

    def load_state_dict(self, state: dict[str, Tensor], strict: bool = True) -> None:  # type: ignore[override]
        del strict
        assert all(_same(state[name], self.state[name]) for name in self.state)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


@given(rows=st.lists(st.tuples(finite, finite, finite), max_size=10))
def test_history_files_hold_the_exact_numbers(rows: list[tuple[float, float, float]]) -> None:
    history = History()
    for step, (loss, norm, lr) in enumerate(rows, start=1):
        history.log_step(
            step,
            epoch=0,
            info=StepInfo(stepped=True, loss=loss, grad_norm=norm, lr=lr, skipped=False),
        )

    with tempfile.TemporaryDirectory() as folder:
        history.save(f"{folder}/h.jsonl")
        lines = Path(f"{folder}/h.jsonl").read_text().splitlines()

    back = [json.loads(line) for line in lines]
    assert [(row["loss"], row["grad_norm"], row["lr"]) for row in back] == rows


@given(count=st.integers(1, 12), data=st.data())
def test_a_loader_goes_on_from_any_batch(count: int, data: st.DataObject) -> None:
    dataset = torch.arange(count)
    make = lambda: ResumableLoader(  # noqa: E731
        torch.utils.data.DataLoader(dataset, batch_size=None, shuffle=True)  # type: ignore[arg-type]
    )
    stop = data.draw(st.integers(0, count))
    torch.manual_seed(data.draw(st.integers(0, 100)))
    first = make()
    batches = iter(first)
    seen = [int(next(batches)) for _ in range(stop)]
    state, random_state = first.state_dict(), rng_state()
    rest = [int(batch) for batch in batches]

    second = make()
    second.load_state_dict(state)
    torch.rand(3)
    set_rng_state(random_state)

    assert sorted(seen + rest) == list(range(count))
    assert [int(batch) for batch in second] == rest
