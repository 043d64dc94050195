"""Losses weighted by rules: worked examples, the formulas in plain Python, resume, refusals."""

import copy
import io
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from medkit.losses import (
    CrossEntropyLoss,
    DeepSupervision,
    DiceLoss,
    DynamicWeightAverage,
    GradNorm,
    ReLoBRaLo,
    UncertaintyWeighting,
    WholeBatch,
    cross_entropy_loss,
    dice_loss,
)
from medkit.testing import assert_close
from unit.losses.refusals import refuses

NAMES = ["a", "b", "c"]
KINDS: list[Callable[..., nn.Module]] = [
    UncertaintyWeighting,
    DynamicWeightAverage,
    GradNorm,
    ReLoBRaLo,
]


def named(values: list[float]) -> dict[str, float]:
    return dict(zip(NAMES, values, strict=True))


def tensors(values: list[float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in named(values).items()}


def series(steps: int) -> list[list[float]]:
    """Return values of three losses of unlike scale that go down, with noise."""
    generator = torch.Generator().manual_seed(4)
    noise = torch.rand(steps, 3, generator=generator, dtype=torch.float64).tolist()
    return [
        [s * (0.9**t + 0.3 * n) for s, n in zip((1.0, 40.0, 0.01), row, strict=True)]
        for t, row in enumerate(noise)
    ]


def softmax(logits: list[float]) -> list[float]:
    """Return shares that add up to their number."""
    odds = [math.exp(x - max(logits)) for x in logits]
    return [len(odds) * o / math.fsum(odds) for o in odds]


def weights(loss: nn.Module) -> list[float]:
    return [float(weight) for weight in loss.weights.values()]


# What they share


@pytest.mark.parametrize("kind", KINDS)
def test_they_start_with_equal_weights_and_evaluate_their_losses(kind: type) -> None:
    x, labels = torch.randn(2, 3, 8), torch.randint(0, 3, (2, 8))
    loss = kind({"dice": DiceLoss(), "ce": cross_entropy_loss})

    terms = loss.terms(x, labels)

    assert list(terms) == ["dice", "ce"]
    assert_close(terms["dice"], dice_loss(x, labels))
    half = 0.5 if kind is UncertaintyWeighting else 1.0
    assert_close(loss.total(terms), half * (terms["dice"] + terms["ce"]))
    assert torch.equal(loss(x, labels), loss.total(terms))
    assert weights(loss) == [half, half]


@pytest.mark.parametrize("kind", KINDS)
def test_they_compose(kind: type) -> None:
    x, labels = torch.randn(4, 3, 8, dtype=torch.float64), torch.randint(0, 3, (4, 8))
    loss = kind({"dice": DiceLoss(batch=True), "ce": CrossEntropyLoss()})
    whole = WholeBatch(loss)
    for i in range(2):
        whole.add(x[2 * i : 2 * i + 2], labels[2 * i : 2 * i + 2])

    assert_close(whole(x[:2], labels[:2]), loss(x, labels))
    heads = DeepSupervision(loss, weights=(1.0, 0.5))
    assert list(heads.terms([x, x], labels))[:2] == ["head_0.dice", "head_0.ce"]
    assert_close(heads([x, x], labels), 1.5 * loss(x, labels))


@pytest.mark.parametrize("kind", KINDS)
def test_names_alone_are_enough_for_values_from_elsewhere(kind: type) -> None:
    loss = kind(NAMES)

    assert loss.total(tensors([1.0, 2.0, 3.0])).item() in (3.0, 6.0)
    with refuses("losses"):
        loss(torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.int64))
    for wrong in ([], ["a", "a"], "abc"):
        with refuses("losses"):
            kind(wrong)
    with refuses("terms"):
        loss.total({"a": torch.tensor(1.0)})


def advance(loss: nn.Module, values: list[float], x: Tensor) -> Tensor:
    """Move a rule by one step, at whatever it asks for; return the total."""
    terms = {name: v * x.square().sum() for name, v in named(values).items()}
    if isinstance(loss, GradNorm):
        loss.update(terms, [x])
    elif not isinstance(loss, UncertaintyWeighting):
        loss.update(terms)
    return loss.total(terms)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_resuming_from_a_file_is_exact(kind: type) -> None:
    options = {"alpha": 0.7, "rho": 0.5} if kind is ReLoBRaLo else {}
    x = torch.ones(2, requires_grad=True)
    straight, file = kind(NAMES, **options), io.BytesIO()
    for number, values in enumerate(series(12)):
        if number == 5:
            torch.save(straight.state_dict(), file)
        advance(straight, values, x)
    resumed = kind(NAMES, **options)
    file.seek(0)

    resumed.load_state_dict(torch.load(file, weights_only=True))
    for values in series(12)[5:]:
        advance(resumed, values, x)

    assert len(set(weights(straight))) == 3
    assert weights(resumed) == weights(straight)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_go_their_own_way(kind: type) -> None:
    options = {"alpha": 0.7, "rho": 0.5} if kind is ReLoBRaLo else {}
    loss, x = kind(NAMES, **options), torch.ones(2, requires_grad=True)
    advance(loss, [1.0, 2.0, 3.0], x)
    twins = copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))
    totals = [advance(loss, values, x) for values in series(6)]

    for twin in twins:
        assert [advance(twin, values, x) for values in series(6)] == totals


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_value_that_is_not_finite_moves_nothing(kind: type) -> None:
    loss, x = kind(NAMES), torch.ones(2, requires_grad=True)
    for values in series(3):
        advance(loss, values, x)
    before = copy.deepcopy(loss.state_dict())

    advance(loss, [1.0, math.nan, 2.0], x)
    advance(loss, [1.0, math.inf, 2.0], x)

    for name, value in loss.named_buffers():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_total_before_an_update_keeps_its_weights(kind: type) -> None:
    loss, x = kind(NAMES), torch.ones(2, requires_grad=True)
    for values in series(2):
        advance(loss, values, x)
    terms = {name: v * x.square().sum() for name, v in named([3.0, 5.0, 7.0]).items()}
    total, expected = (
        loss.total(terms),
        sum(w * v for w, v in zip(weights(loss), (3, 5, 7), strict=True)),
    )

    advance(loss, [5.0, 1.0, 2.0], x)
    total.backward()

    assert_close(x.grad, 2 * expected * torch.ones(2))


@pytest.mark.parametrize("kind", KINDS)
def test_repr_shows_the_options(kind: type) -> None:
    assert any(option in repr(kind(NAMES)) for option in ("penalty=", "temperature=", "lr="))


# Uncertainty


def test_uncertainty_settles_where_every_loss_has_the_same_share() -> None:
    loss, values = UncertaintyWeighting(NAMES).double(), [0.02, 3.0, 500.0]
    optimizer = torch.optim.LBFGS(
        loss.parameters(),
        max_iter=500,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=0.0,
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = loss.total(tensors(values))
        total.backward()
        return total

    optimizer.step(closure)

    optimum = torch.tensor([math.log(v) for v in values], dtype=torch.float64)
    assert_close(loss.log_variance.detach(), optimum, rtol=1e-6)
    total = 0.5 * math.fsum(1 + math.log(v) for v in values)
    assert_close(loss.total(tensors(values)).detach(), torch.tensor(total, dtype=torch.float64))


@pytest.mark.parametrize("penalty", ["kendall", "liebel"])
def test_uncertainty_equals_its_formula(penalty: str) -> None:
    loss, s, values = UncertaintyWeighting(NAMES, penalty=penalty), [-3.0, 0.5, 30.0], [0.1, 2.0, 9]
    loss.double().log_variance.data.copy_(torch.tensor(s))
    terms = {name: v.requires_grad_() for name, v in tensors(values).items()}

    total = loss.total(terms)
    total.backward()

    below = [x / 2 if penalty == "kendall" else math.log1p(math.exp(x)) for x in s]
    expected = math.fsum(math.exp(-x) * v / 2 + y for x, v, y in zip(s, values, below, strict=True))
    assert float(total.detach()) == pytest.approx(expected, rel=1e-14)
    got = [float(v.grad) for v in terms.values()]
    assert got == pytest.approx([math.exp(-x) / 2 for x in s], rel=1e-14)
    assert weights(loss) == pytest.approx(got, rel=1e-14)
    slope = [0.5 if penalty == "kendall" else 1 / (1 + math.exp(-x)) for x in s]
    wanted = [g - math.exp(-x) * v / 2 for x, v, g in zip(s, values, slope, strict=True)]
    assert loss.log_variance.grad.tolist() == pytest.approx(wanted, rel=1e-13)


def test_the_other_penalty_keeps_the_total_above_zero() -> None:
    tiny = tensors([1e-9, 1e-9, 1e-9])
    loss, other = UncertaintyWeighting(NAMES), UncertaintyWeighting(NAMES, penalty="liebel")
    for each in (loss, other):
        each.log_variance.data.fill_(-20.0)

    assert loss.total(tiny) < 0 < other.total(tiny)
    with refuses("penalty"):
        UncertaintyWeighting(NAMES, penalty="none")


# Average over epochs


def test_epochs_are_weighed_by_how_little_they_brought() -> None:
    loss, means = DynamicWeightAverage(NAMES, temperature=2.0).double(), series(6)
    seen = [weights(loss)]
    for values in means:
        loss.update(named(values))
        seen.append(weights(loss))

    assert seen[0] == seen[1] == [1.0, 1.0, 1.0]
    for epoch in range(2, 7):
        rates = [b / a / 2.0 for a, b in zip(means[epoch - 2], means[epoch - 1], strict=True)]
        assert seen[epoch] == pytest.approx(softmax(rates), rel=1e-13)
        assert sum(seen[epoch]) == pytest.approx(3)
    with refuses("temperature"):
        DynamicWeightAverage(NAMES, temperature=0.0)


# Random looks back


def test_the_worked_example_of_relative_balancing() -> None:
    loss = ReLoBRaLo(NAMES, alpha=0.0)
    loss.update(named([1.0, 0.5, 2.0]))
    assert weights(loss) == [1.0, 1.0, 1.0]

    loss.update(named([0.9, 0.3, 2.0]))

    assert weights(loss) == pytest.approx([1.0541, 0.7809, 1.1650], abs=5e-5)


@pytest.mark.parametrize("rho", [0.0, 0.6, 1.0])
def test_relative_balancing_equals_its_formula(rho: float) -> None:
    options = {"alpha": 0.8, "rho": rho, "temperature": 0.5}
    loss = ReLoBRaLo(NAMES, generator=torch.Generator().manual_seed(9), **options).double()
    draws, values = torch.Generator().manual_seed(9), series(15)
    expected = [1.0, 1.0, 1.0]
    stays = []

    for t, now in enumerate(values):
        loss.update(named(now))
        stays.append(float(torch.rand((), generator=draws)) < rho)
        if t:
            start, last = (
                softmax([a / (0.5 * b) for a, b in zip(now, values[s], strict=True)])
                for s in (0, t - 1)
            )
            before = expected if stays[-1] else start
            expected = [0.8 * b + 0.2 * new for b, new in zip(before, last, strict=True)]
        assert weights(loss) == pytest.approx(expected, rel=1e-12)

    assert set(stays) == {rho > 0, rho == 1.0}
    with refuses("rho"):
        ReLoBRaLo(NAMES, rho=1.5)


def test_looks_back_are_the_same_in_every_run() -> None:
    first, second = ReLoBRaLo(NAMES, rho=0.5), ReLoBRaLo(NAMES, rho=0.5)
    torch.manual_seed(1)
    for values in series(20):
        first.update(named(values))
    torch.manual_seed(2)
    for values in series(20):
        second.update(named(values))

    assert weights(first) == weights(second)


# Gradients


def test_gradient_norms_equal_their_formula() -> None:
    """Ten steps against the formulas in plain Python; no parameter gets a gradient."""
    trunk = nn.Linear(3, 4, dtype=torch.float64)
    heads = [nn.Linear(4, 1, dtype=torch.float64) for _ in NAMES]
    loss = GradNorm(NAMES, alpha=1.5, lr=0.05).double()
    w, initial = [1.0, 1.0, 1.0], None

    for step in range(10):
        x = torch.randn(6, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        y = trunk(x).tanh()
        values = [s * h(y).square().mean() for s, h in zip((1.0, 40.0, 0.2), heads, strict=True)]
        loss.update(dict(zip(NAMES, values, strict=True)), trunk.parameters())

        norms = []
        for value in values:
            parts = torch.autograd.grad(value, tuple(trunk.parameters()), retain_graph=True)
            norms.append(math.sqrt(math.fsum(float(v) ** 2 for p in parts for v in p.flatten())))
        numbers = [v.item() for v in values]
        initial = initial or numbers
        rates = [v / first for v, first in zip(numbers, initial, strict=True)]
        sizes = [a * n for a, n in zip(w, norms, strict=True)]
        wanted = [sum(sizes) / 3 * (r / (sum(rates) / 3)) ** 1.5 for r in rates]
        signs = [
            math.copysign(1, g - t) if g != t else 0 for g, t in zip(sizes, wanted, strict=True)
        ]
        w = [max(0.0, a - 0.05 * s * n) for a, s, n in zip(w, signs, norms, strict=True)]
        w = [3 * a / sum(w) for a in w]
        assert weights(loss) == pytest.approx(w, rel=1e-11)

    assert all(p.grad is None for p in (*trunk.parameters(), *loss.parameters()))
    assert len(set(w)) == 3


def test_its_step_goes_down_the_gradient_that_autograd_finds() -> None:
    x = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    terms = {"a": x.square().sum(), "b": (3 * x).sum(), "c": x.prod()}
    loss = GradNorm(NAMES, lr=0.01).double()
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    sizes = torch.stack(
        [
            torch.autograd.grad(w[i] * term, x, create_graph=True)[0].norm()
            for i, term in enumerate(terms.values())
        ]
    )
    (sizes - sizes.mean().detach()).abs().sum().backward(inputs=[w])
    terms = {"a": x.square().sum(), "b": (3 * x).sum(), "c": x.prod()}
    expected = w.detach() - 0.01 * w.grad

    loss.update(terms, [x])

    assert_close(loss.weight, 3 * expected / expected.sum())


def test_a_loss_that_does_not_reach_the_layer_has_no_gradient_there() -> None:
    x, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    loss = GradNorm(["a", "b"])

    loss.update({"a": x.sum(), "b": other.sum()}, [x])

    assert weights(loss)[1] > weights(loss)[0] >= 0
    with refuses("shared"):
        loss.update({"a": x.sum(), "b": x.sum()}, [])
    with refuses("alpha"):
        GradNorm(NAMES, alpha=-1.0)
    with refuses("lr"):
        GradNorm(NAMES, lr=0.0)
