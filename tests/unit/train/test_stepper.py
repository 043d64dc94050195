"""One optimizer step: the right gradient, in the right order, or none at all."""

import copy
import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, lr_scheduler
from torch.utils.data import DataLoader, IterableDataset

from medkit.testing import assert_close
from medkit.train import AmpPolicy, StepInfo, Stepper, WarmupCosine, _stepper


def _model(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)


def _batches(count: int, size: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return list(
        torch.randn(count, size, 3, dtype=dtype, generator=torch.Generator().manual_seed(2))
    )


def _loss(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


class _Recorder(SGD):
    """Keeps the gradients it was asked to step with."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), lr=0.1)
        self.seen: list[list[Tensor]] = []

    def step(self) -> None:  # type: ignore[override]
        grads = (p.grad for group in self.param_groups for p in group["params"])
        self.seen.append([g.clone() for g in grads if g is not None])


def _run(stepper: Stepper, batches: object) -> list[StepInfo]:
    infos = []
    for x, _ in stepper.micro_batches(batches):  # type: ignore[arg-type]
        with stepper.autocast():
            loss = _loss(stepper.model, x)
        stepper.backward(loss)
        infos.append(stepper.step())
    return infos


def _gradient(model: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(_loss(model, x), list(model.parameters())))


class _Stream(IterableDataset[Tensor]):
    def __init__(self, batches: list[Tensor]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return 1000  # a guess, as for streams

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 4])
def test_windows_have_the_gradient_of_the_big_batch(
    accumulate: int, count: int, dtype: torch.dtype
) -> None:
    model, batches = _model(dtype), _batches(count, dtype=dtype)
    optimizer = _Recorder(model)

    _run(Stepper(model, optimizer, accumulate=accumulate), batches)

    groups = [batches[i : i + accumulate] for i in range(0, count, accumulate)]
    assert len(optimizer.seen) == len(groups)
    for grads, group in zip(optimizer.seen, groups, strict=True):
        expected = _gradient(model, torch.cat(group))
        whole = torch.cat([g.flatten() for g in expected])
        error = torch.cat([g.flatten() for g in grads]) - whole
        assert error.norm() <= 1e-6 * whole.norm()


@pytest.mark.parametrize("kind", ["list", "iterator", "stream", "unsized loader"])
def test_every_kind_of_loader_ends_in_a_window_of_its_true_size(kind: str) -> None:
    batches = _batches(5)
    loader: object = {
        "list": batches,
        "iterator": (x for x in batches),
        "stream": DataLoader(_Stream(batches), batch_size=None),
        "unsized loader": _Stream(batches),
    }[kind]
    if kind == "unsized loader":
        loader = DataLoader(_Endless(batches), batch_size=None)
    model = _model()
    optimizer = _Recorder(model)
    stepper = Stepper(model, optimizer, accumulate=3)

    places = []
    for x, window in stepper.micro_batches(loader):  # type: ignore[arg-type]
        places.append((window.position, window.size, window.last))
        stepper.backward(_loss(model, x))
        stepper.step()

    full = [(0, 3, False), (1, 3, False), (2, 3, True)]
    assert places == [*full, (0, 2, False), (1, 2, True)]
    last = _gradient(model, torch.cat(batches[3:]))
    for actual, expected in zip(optimizer.seen[-1], last, strict=True):
        assert_close(actual, expected)


class _Endless(IterableDataset[Tensor]):
    def __init__(self, batches: list[Tensor]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)


def test_weights_make_means_over_different_counts_equal_the_big_batch() -> None:
    model = _model()
    optimizer = _Recorder(model)
    stepper = Stepper(model, optimizer, accumulate=3)
    batches = [x[:n] for x, n in zip(_batches(3), (4, 1, 2), strict=True)]

    for x, _ in stepper.micro_batches(batches):
        stepper.backward(_loss(model, x), weight=float(len(x)))
        info = stepper.step()

    for actual, expected in zip(
        optimizer.seen[0], _gradient(model, torch.cat(batches)), strict=True
    ):
        assert_close(actual, expected)
    assert_close(info.loss, _loss(model, torch.cat(batches)).item(), rtol=1e-12)


def test_a_weight_may_be_a_tensor_and_may_be_nothing() -> None:
    model = _model()
    optimizer = _Recorder(model)
    stepper = Stepper(model, optimizer, accumulate=2)
    a, b = _batches(2)

    for x, weight in ((a, torch.tensor(3)), (b, torch.tensor(0))):
        stepper.backward(_loss(model, x), weight=weight)
        info = stepper.step()

    for actual, expected in zip(optimizer.seen[0], _gradient(model, a), strict=True):
        assert_close(actual, expected)
    assert_close(info.loss, _loss(model, a).item(), rtol=1e-12)


def test_weights_that_are_all_zero_are_an_error() -> None:
    model = _model()
    stepper = Stepper(model, _Recorder(model))
    stepper.backward(_loss(model, _batches(1)[0]), weight=0.0)

    with pytest.raises(FloatingPointError, match="from weights that are all 0"):
        stepper.step()


def test_one_step_has_the_bits_of_the_loop_by_hand() -> None:
    ours, theirs = _model(torch.float32), _model(torch.float32)
    optimizer = AdamW(ours.parameters(), lr=0.01)
    schedule = WarmupCosine(optimizer, 20, warmup_steps=3)
    stepper = Stepper(ours, optimizer, scheduler=schedule, accumulate=2, clip_norm=0.5)
    batches = _batches(12, dtype=torch.float32)

    infos = _run(stepper, batches)[1::2]

    optimizer = AdamW(theirs.parameters(), lr=0.01)
    schedule = WarmupCosine(optimizer, 20, warmup_steps=3)
    for info, pair in zip(infos, zip(batches[::2], batches[1::2], strict=True), strict=True):
        losses = [_loss(theirs, x) for x in pair]
        for loss in losses:
            (loss / 2).backward()
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        lr = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        mean = (losses[0].item() + losses[1].item()) / 2
        assert info == StepInfo(
            stepped=True, loss=mean, grad_norm=norm.item(), lr=lr, skipped=False
        )
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_clipping_bounds_the_norm_and_reports_the_one_before() -> None:
    model = _model()
    optimizer = _Recorder(model)
    stepper = Stepper(model, optimizer, clip_norm=1e-3)
    (x,) = _batches(1)
    before = torch.cat([g.flatten() for g in _gradient(model, x)]).norm().item()

    (info,) = _run(stepper, [x])

    after = torch.cat([g.flatten() for g in optimizer.seen[0]]).norm().item()
    assert_close(info.grad_norm, before, rtol=1e-9)
    assert_close(after, 1e-3, rtol=1e-3)  # torch divides by the norm + 1e-6


def test_clipping_by_value_bounds_every_entry() -> None:
    model = _model()
    optimizer = _Recorder(model)
    (x,) = _batches(1)

    _run(Stepper(model, optimizer, clip_value=1e-3), [x])

    for actual, expected in zip(optimizer.seen[0], _gradient(model, x), strict=True):
        assert_close(actual, expected.clamp(-1e-3, 1e-3))


def test_fp16_clips_what_fp32_clips() -> None:
    """The scaler multiplies gradients by 65536: clipping before unscaling would leave nothing."""
    norms = {}
    for mode in ("off", "fp16"):
        model = _model(torch.float32)
        optimizer = _Recorder(model)
        stepper = Stepper(model, optimizer, clip_norm=0.01, amp=mode)
        _run(stepper, _batches(1, dtype=torch.float32))
        norms[mode] = torch.cat([g.flatten() for g in optimizer.seen[0]]).norm().item()

    assert_close(norms["fp16"], norms["off"], rtol=1e-3)
    assert_close(norms["off"], 0.01, rtol=1e-3)


def test_fp16_trains_and_skips_only_the_overflow() -> None:
    model = _model(torch.float32)
    stepper = Stepper(model, SGD(model.parameters(), lr=0.01), amp="fp16")
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)  # gradients overflow
    (x,) = _batches(1, dtype=torch.float32)
    before = copy.deepcopy(model.state_dict())

    first = _run(stepper, [x])[0]
    same = all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    later = _run(stepper, [x] * 40)

    assert first.skipped
    assert same
    assert stepper.scaler.get_scale() < 2.0**20
    assert later[-1].stepped


def test_an_fp16_scale_that_never_fits_is_given_up() -> None:
    model = nn.Linear(3, 1)
    stepper = Stepper(model, SGD(model.parameters(), lr=0.1), amp="fp16", max_skips=3)
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)

    with pytest.raises(FloatingPointError, match="4 windows skipped in a row"):
        _run(stepper, [torch.full((1, 3), 1e3)] * 10)


def test_bf16_autocast_computes_in_bf16_and_keeps_float32_weights() -> None:
    model = _model(torch.float32)
    stepper = Stepper(model, SGD(model.parameters(), lr=0.1), amp="bf16")
    (x,) = _batches(1, dtype=torch.float32)

    with stepper.autocast():
        output = model(x)
    losses = [info.loss for info in _run(stepper, [x] * 60)]

    assert output.dtype == torch.bfloat16
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert losses[-1] < 0.5 * losses[0]
    assert stepper.scaler is None


def test_a_policy_may_be_handed_in() -> None:
    policy = AmpPolicy("bf16")
    model = _model()

    assert Stepper(model, _Recorder(model), amp=policy).amp is policy


@pytest.mark.parametrize("amp", ["off", "fp16"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_raises_in_the_same_step(bad: float, amp: str) -> None:
    model = _model(torch.float32)
    stepper = Stepper(model, AdamW(model.parameters()), accumulate=2, amp=amp)  # type: ignore[arg-type]
    batches = [{"image": x, "id": f"case {i}"} for i, x in enumerate(_batches(4, 4, torch.float32))]
    batches[3]["image"] = batches[3]["image"] * bad
    before: dict[str, Tensor] = {}

    with pytest.raises(FloatingPointError, match=r"step 2, from batch 3 .*\(id case 3\)"):  # noqa: PT012
        for batch, window in stepper.micro_batches(batches):
            if window.position == 0:
                before = copy.deepcopy(model.state_dict())
            stepper.backward(_loss(model, batch["image"]))
            stepper.step()

    assert stepper.num_steps == 1
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_gradient_that_is_not_finite_under_a_finite_loss_names_its_parameter() -> None:
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    stepper = Stepper(model, SGD(model.parameters(), lr=0.1))
    stepper.backward(model(torch.ones(1, 2)).sqrt().sum())  # 0, with an infinite slope

    with pytest.raises(FloatingPointError, match=r"gradient is not finite.*first at weight"):
        stepper.step()

    assert torch.equal(model.weight, torch.zeros(1, 2))


def test_a_long_list_of_bad_parameters_is_cut() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    stepper = Stepper(model, SGD(model.parameters(), lr=0.1))
    loss = model(torch.ones(1, 2)).sum()
    stepper.backward(loss)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)

    with pytest.raises(FloatingPointError, match=r"first at 0.weight, 0.bias, 1.weight, \.\.\.;"):
        stepper.step()


@pytest.mark.parametrize("policy", ["skip", "warn"])
def test_a_bad_window_is_left_out(policy: str) -> None:
    model = _model()
    optimizer = AdamW(model.parameters())
    schedule = WarmupCosine(optimizer, 10)
    stepper = Stepper(model, optimizer, scheduler=schedule, nonfinite=policy)  # type: ignore[arg-type]
    a, b, c = _batches(3)
    alone = _model()
    alone_optimizer = AdamW(alone.parameters())
    _run(Stepper(alone, alone_optimizer, scheduler=WarmupCosine(alone_optimizer, 10)), [a, c])

    if policy == "warn":
        with pytest.warns(RuntimeWarning, match="skipped a window: the loss is nan"):
            infos = _run(stepper, [a, b * math.nan, c])
    else:
        infos = _run(stepper, [a, b * math.nan, c])

    assert [(i.stepped, i.skipped) for i in infos] == [(True, False), (False, True), (True, False)]
    assert (stepper.num_steps, stepper.num_skipped, schedule.last_epoch) == (2, 1, 2)
    for x, y in zip(model.parameters(), alone.parameters(), strict=True):
        assert torch.equal(x, y)


def test_too_many_bad_windows_in_a_row_are_an_error() -> None:
    model = _model()
    stepper = Stepper(model, AdamW(model.parameters()), nonfinite="skip", max_skips=2)
    good, bad = _batches(2)
    bad = bad * math.nan

    _run(stepper, [bad, bad, good, bad, bad, good])
    with pytest.raises(FloatingPointError, match="3 windows skipped in a row: the loss is nan"):
        _run(stepper, [bad, bad, bad])


def test_a_nan_in_running_statistics_cannot_be_skipped() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    stepper = Stepper(model, SGD(model.parameters(), lr=0.1), nonfinite="skip")

    with pytest.raises(
        FloatingPointError, match=r"has spoiled 1.running_mean, 1.running_var: go on"
    ):
        _run(stepper, [torch.full((4, 3), math.nan)])


def test_without_micro_batches_the_window_is_counted_or_told() -> None:
    model = _model()
    optimizer = _Recorder(model)
    stepper = Stepper(model, optimizer, accumulate=2)
    a, b, c = _batches(3)

    steps = []
    for x, last in ((a, None), (b, None), (c, True)):
        stepper.backward(_loss(model, x))
        steps.append(stepper.step(last=last).stepped)

    assert steps == [False, True, True]
    for actual, expected in zip(optimizer.seen[1], _gradient(model, c), strict=True):
        assert_close(actual, expected)


def test_a_step_inside_a_window_does_nothing() -> None:
    model = _model()
    stepper = Stepper(model, AdamW(model.parameters(), lr=0.5), accumulate=2)
    before = copy.deepcopy(model.state_dict())
    stepper.backward(_loss(model, _batches(1)[0]))

    info = stepper.step()

    assert (info.stepped, info.skipped, info.lr) == (False, False, 0.5)
    assert math.isnan(info.loss)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_window_left_by_break_is_thrown_away() -> None:
    model = _model()
    optimizer = _Recorder(model)
    stepper = Stepper(model, optimizer, accumulate=2)
    a, b, c = _batches(3)

    for x, _ in stepper.micro_batches([a, b]):
        stepper.backward(_loss(model, x))
        break
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(RuntimeError, match="this window is empty"):
        stepper.step()
    _run(stepper, [b, c])

    for actual, expected in zip(
        optimizer.seen[0], _gradient(model, torch.cat([b, c])), strict=True
    ):
        assert_close(actual, expected)


@pytest.mark.usefixtures("unhooked")
def test_mistakes_in_the_loop_are_told() -> None:
    model = _model()
    stepper = Stepper(model, _Recorder(model))
    (x,) = _batches(1)

    with pytest.raises(RuntimeError, match=r"step\(\) must come after backward\(\)"):
        stepper.step()
    with pytest.raises(ValueError, match=r"loss must be a single number .*; got shape \(4, 1\)"):
        stepper.backward(model(x))
    with pytest.raises(ValueError, match="weight must be zero or positive; got -1"):
        stepper.backward(_loss(model, x), weight=-1)
    with pytest.raises(RuntimeError, match="must be called at the end of every window"):  # noqa: PT012
        for batch, _ in stepper.micro_batches([x, x]):
            stepper.backward(_loss(model, batch))
    unused = nn.Module()
    unused.add_module("used", model)
    unused.register_parameter("spare", nn.Parameter(torch.zeros(1)))
    frozen = Stepper(unused, SGD([unused.spare], lr=0.1))
    frozen.backward(_loss(model, x))
    with pytest.raises(RuntimeError, match="no parameter of the optimizer received a gradient"):
        frozen.step()


@pytest.mark.parametrize(("length", "found"), [(5, "3"), (2, "more")])
def test_a_loader_that_lies_about_its_length_is_an_error(length: int, found: str) -> None:
    class Liar(list[Tensor]):
        def __len__(self) -> int:
            return length

    model = _model()
    stepper = Stepper(model, _Recorder(model), accumulate=2)

    with pytest.raises(RuntimeError, match=f"has length {length} and gave {found} batches"):
        _run(stepper, Liar(_batches(3)))


@pytest.mark.usefixtures("unhooked")
def test_options_are_checked() -> None:
    model = _model()
    optimizer = _Recorder(model)

    with pytest.raises(ValueError, match="accumulate must be at least 1; got 0"):
        Stepper(model, optimizer, accumulate=0)
    with pytest.raises(ValueError, match="nonfinite must be one of 'raise', 'skip', 'warn'"):
        Stepper(model, optimizer, nonfinite="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="clip_value must be None when clip_norm is given"):
        Stepper(model, optimizer, clip_norm=1.0, clip_value=1.0)
    with pytest.raises(ValueError, match="scheduler must be a function of the step"):
        Stepper(model, optimizer, scheduler=lr_scheduler.ReduceLROnPlateau(optimizer))


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_a_state_goes_on_where_it_was(amp: str) -> None:
    def make() -> Stepper:
        model = _model(torch.float32)
        optimizer = AdamW(model.parameters(), lr=0.01)
        schedule = WarmupCosine(optimizer, 20, warmup_steps=3)
        return Stepper(model, optimizer, scheduler=schedule, amp=amp, nonfinite="skip")  # type: ignore[arg-type]

    batches = _batches(10, dtype=torch.float32)
    batches[4] = batches[4] * math.nan
    whole = make()
    _run(whole, batches)
    first, second = make(), make()
    _run(first, batches[:6])

    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    _run(second, batches[6:])

    assert (second.num_steps, second.num_skipped) == (whole.num_steps, whole.num_skipped)
    assert whole.num_skipped >= 1
    for a, b in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_state_is_taken_between_windows_and_must_fit() -> None:
    model = _model()
    stepper = Stepper(model, AdamW(model.parameters()), accumulate=2)
    scheduled = Stepper(
        model, optimizer := AdamW(model.parameters()), scheduler=WarmupCosine(optimizer, 5)
    )

    with pytest.raises(ValueError, match=r"state_dict must be made of .*optimizer, scheduler; got"):
        scheduled.load_state_dict(stepper.state_dict())
    stepper.backward(_loss(model, _batches(1)[0]))
    with pytest.raises(RuntimeError, match="between windows"):
        stepper.state_dict()


def test_a_model_on_several_processes_exchanges_gradients_once_a_window() -> None:
    class Sharded(nn.Linear):
        """Has FSDP2's switch."""

        def __init__(self) -> None:
            super().__init__(3, 1)
            self.exchanges: list[bool] = []

        def set_requires_gradient_sync(self, requires_gradient_sync: bool) -> None:
            self.exchanges.append(requires_gradient_sync)

    model = Sharded()
    stepper = Stepper(model, SGD(model.parameters(), lr=0.1), accumulate=3)

    _run(stepper, _batches(5, dtype=torch.float32))

    assert model.exchanges == [False, False, True, False, True]


def test_a_norm_held_in_parts_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parts(nn.Linear):
        def set_requires_gradient_sync(self, requires_gradient_sync: bool) -> None:
            pass

    class Norm:
        def full_tensor(self) -> Tensor:
            return torch.tensor(7.0)

        def to_local(self) -> Tensor:
            return torch.tensor(5.0)

    monkeypatch.setattr(_stepper, "get_total_norm", lambda _: Norm())
    model = Parts(3, 1)
    stepper = Stepper(model, SGD(model.parameters(), lr=0.1))

    (info,) = _run(stepper, _batches(1, dtype=torch.float32))

    assert info.grad_norm == 7.0


def test_gradients_of_replicas_wait_for_the_end_of_the_window() -> None:
    class Replicated(nn.Linear):
        """Has DDP's switch."""

        def __init__(self) -> None:
            super().__init__(3, 1)
            self.waiting: list[bool] = [False]

        @contextmanager
        def no_sync(self) -> Generator[None, None, None]:
            self.waiting.append(True)
            yield
            self.waiting.append(False)

    model = Replicated()
    stepper = Stepper(model, SGD(model.parameters(), lr=0.1), accumulate=2)
    seen = []

    for x, _ in stepper.micro_batches(_batches(3, dtype=torch.float32)):
        seen.append(model.waiting[-1])
        stepper.backward(_loss(model, x))
        stepper.step()

    assert seen == [True, False, False]


@pytest.mark.usefixtures("unhooked")
def test_an_unknown_precision_is_an_error_of_amp() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"^amp must be one of 'off', 'bf16', 'fp16', 'auto'; got"):
        Stepper(model, SGD(model.parameters(), lr=0.1), amp=True)
