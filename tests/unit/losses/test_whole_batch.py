"""The gradient of a batch in pieces is that of the batch at once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from medkit.losses import (
    ClDiceLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    JaccardLoss,
    TverskyLoss,
    WeightedSum,
    WholeBatch,
    dice_loss,
)
from medkit.testing import assert_close
from medkit.train import Stepper
from unit.losses import oracle
from unit.losses.refusals import refuses

SCRIPT = Path(__file__).with_name("whole_batch_processes.py")
PIECE = 3
IGNORED = 255


def network(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Conv3d(1, 6, 3, padding=1), nn.Tanh(), nn.Conv3d(6, 3, 1)
    return nn.Sequential(*layers).to(dtype)


def batch(dtype: torch.dtype = torch.float64, samples: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels ignored from none to nearly all from sample to sample, and a mask."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(samples, 1, 5, 4, 3, generator=generator, dtype=torch.float64)
    labels = ((images[:, 0] > 0.3).long() + (images[:, 0] > 1.2).long()).clone()
    chance = torch.linspace(0, 0.95, samples).view(-1, 1, 1, 1)
    labels[torch.rand(labels.shape, generator=generator) < chance] = IGNORED
    mask = torch.rand(labels.shape, generator=generator, dtype=torch.float64)
    return images.to(dtype), labels, mask.to(dtype)


def dice_and_cross_entropy(**options: object) -> WeightedSum:
    dice = DiceLoss(ignore_index=IGNORED, batch=True, **options)
    entropy = CrossEntropyLoss(ignore_index=IGNORED, class_weight=(1.0, 2.0, 5.0))
    return WeightedSum({"dice": (1.0, dice), "ce": (0.7, entropy)})


def split(*tensors: Tensor, size: int = PIECE) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


def gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def at_once(loss: nn.Module, dtype: torch.dtype, *, masked: bool = False) -> tuple[Tensor, Tensor]:
    model, (images, labels, mask) = network(dtype), batch(dtype)
    value = loss(model(images), labels, mask=mask if masked else None)
    value.backward()
    return value.detach(), gradient(model)


def in_pieces(loss: nn.Module, dtype: torch.dtype, *, masked: bool = False) -> tuple[Tensor, ...]:
    """Return the value of each piece, and the gradient of all."""
    model, whole = network(dtype), WholeBatch(loss)
    pieces = list(split(*batch(dtype)))
    with torch.no_grad():
        for images, labels, mask in pieces:
            whole.add(model(images), labels, mask=mask if masked else None)
    values = []
    for images, labels, mask in pieces:
        value = whole(model(images), labels, mask=mask if masked else None)
        value.backward()
        values.append(value.detach())
    return torch.stack(values), gradient(model)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "dice": lambda: DiceLoss(ignore_index=IGNORED, batch=True),
    "dice per sample": lambda: DiceLoss(ignore_index=IGNORED),
    "dice skips absent": lambda: DiceLoss(ignore_index=IGNORED, absent="skip"),
    "dice penalizes absent": lambda: DiceLoss(ignore_index=IGNORED, absent="penalize"),
    "dice summed": lambda: DiceLoss(ignore_index=IGNORED, reduction="sum"),
    "weighted dice of regions": lambda: DiceLoss(
        activation="sigmoid",
        ignore_index=IGNORED,
        include_background=False,
        class_weight=(1.0, 2.0, 3.0),
        batch=True,
    ),
    "jaccard": lambda: JaccardLoss(ignore_index=IGNORED, batch=True),
    "focal tversky": lambda: TverskyLoss(
        ignore_index=IGNORED, batch=True, alpha=0.3, beta=0.7, gamma=0.75
    ),
    "generalized dice": lambda: GeneralizedDiceLoss(ignore_index=IGNORED, batch=True),
    "generalized dice per sample": lambda: GeneralizedDiceLoss(ignore_index=IGNORED),
    "focal": lambda: FocalLoss(ignore_index=IGNORED, alpha=0.25),
    "cross entropy": lambda: CrossEntropyLoss(ignore_index=IGNORED),
    "cross entropy with weights": lambda: CrossEntropyLoss(
        ignore_index=IGNORED, class_weight=(1.0, 2.0, 3.0), label_smoothing=0.1
    ),
    "binary cross entropy": lambda: CrossEntropyLoss(ignore_index=IGNORED, activation="sigmoid"),
    "cross entropy summed": lambda: CrossEntropyLoss(ignore_index=IGNORED, reduction="sum"),
    "dice and cross entropy": dice_and_cross_entropy,
    "sum in a sum": lambda: WeightedSum({"seg": (2.0, dice_and_cross_entropy())}),
}


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("name", LOSSES)
def test_pieces_give_value_and_gradient_of_the_batch(name: str, masked: bool) -> None:
    value, expected = at_once(LOSSES[name](), torch.float64, masked=masked)

    values, got = in_pieces(LOSSES[name](), torch.float64, masked=masked)

    assert_close(values, value.expand(3))
    assert relative(got, expected) < 1e-12


@pytest.mark.parametrize("name", LOSSES)
def test_float32_is_exact_to_a_millionth(name: str) -> None:
    _, expected = at_once(LOSSES[name](), torch.float32)

    assert relative(in_pieces(LOSSES[name](), torch.float32)[1], expected) < 1e-6


def test_the_mean_over_pieces_is_another_gradient() -> None:
    """What accumulation does without this, and why the tests above can fail."""
    loss, model = dice_and_cross_entropy(), network(torch.float64)
    pieces = list(split(*batch()))

    for images, labels, _ in pieces:
        (loss(model(images), labels) / len(pieces)).backward()

    assert relative(gradient(model), at_once(loss, torch.float64)[1]) > 3e-2


@given(
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=5).filter(any),
    pooled=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_split_gives_the_same(sizes: list[int], pooled: bool, seed: int) -> None:
    """Pieces of unequal size, some without a sample, classes absent from many."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(sizes), 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, 3, (sum(sizes), 4), generator=generator)
    loss = WeightedSum({"dice": (1.0, DiceLoss(batch=pooled)), "ce": (1.0, CrossEntropyLoss())})
    whole, pieces = WholeBatch(loss), list(zip(x.split(sizes), labels.split(sizes), strict=True))

    for a, b in pieces:
        whole.add(a, b)
    for a, b in pieces:
        whole(a, b).backward()

    assert_close(x.grad, torch.autograd.grad(loss(x, labels), x)[0])


@pytest.mark.parametrize("pooled", [True, False])
def test_value_and_gradient_equal_the_loops_of_the_oracle(pooled: bool) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(3, 2, 4)), rng.integers(0, 2, size=(3, 4))
    truth, weight = oracle.truth_of(labels, 2), np.ones((3, 4))

    def total(logits: np.ndarray) -> float:
        return oracle.dice(logits, truth, weight, batch=pooled) + 0.5 * oracle.cross_entropy(
            logits, truth, weight
        )

    difference = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = 1e-5
        difference[place] = (total(x + step) - total(x - step)) / 2e-5
    logits = torch.from_numpy(x).requires_grad_()
    loss = WeightedSum({"dice": (1.0, DiceLoss(batch=pooled)), "ce": (0.5, CrossEntropyLoss())})
    whole = WholeBatch(loss)

    for a, b in split(logits, torch.from_numpy(labels), size=2):
        whole.add(a, b)
    for a, b in split(logits, torch.from_numpy(labels), size=2):
        value = whole(a, b)
        value.backward()

    assert_close(value, torch.tensor(total(x)))
    assert_close(logits.grad, torch.from_numpy(difference), rtol=1e-6, atol=1e-9)  # of the quotient


def test_one_call_is_a_batch_of_one_piece() -> None:
    model, loss = network(torch.float64), dice_and_cross_entropy()
    images, labels, mask = batch()
    whole = WholeBatch(loss)

    assert_close(whole(model(images), labels, mask=mask), loss(model(images), labels, mask=mask))
    assert not whole.state_dict()


def test_batches_follow_one_another() -> None:
    loss = WholeBatch(dice_loss_of := DiceLoss(batch=True))
    for seed in range(2):
        x = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(seed))
        labels = (x[:, 1] > 0).long()
        for piece in split(x, labels):
            loss.add(*piece)
        for piece in split(x, labels):
            assert_close(loss(*piece), dice_loss_of(x, labels))


def test_a_stepper_divides_by_the_pieces_and_arrives_at_the_same() -> None:
    """Three pieces in a ragged window, clipped, and what the whole batch at once does."""
    images, labels, _ = batch()
    pieces = list(split(images, labels))
    models = [network(torch.float64), network(torch.float64)]
    steppers = [
        Stepper(m, torch.optim.SGD(m.parameters(), lr=0.1), accumulate=a, clip_norm=0.01)
        for m, a in zip(models, (5, 1), strict=True)
    ]
    whole = WholeBatch(dice_and_cross_entropy(), gradients="mean")

    with torch.no_grad():
        for x, y in pieces:
            whole.add(models[0](x), y)
    for (x, y), _ in steppers[0].micro_batches(pieces):
        steppers[0].backward(whole(models[0](x), y))
        info = steppers[0].step()
    steppers[1].backward(dice_and_cross_entropy()(models[1](images), labels))
    expected = steppers[1].step()

    assert info.loss == pytest.approx(expected.loss, rel=1e-12)
    assert info.grad_norm == pytest.approx(expected.grad_norm, rel=1e-12)
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert_close(ours, theirs)


def test_dropout_that_draws_anew_is_an_error() -> None:
    x, labels = torch.randn(4, 2, 512), torch.randint(0, 2, (4, 512))
    dropout, loss = nn.Dropout(0.05), WholeBatch(DiceLoss(batch=True))
    pieces = list(split(x, labels))
    for a, b in pieces:
        loss.add(dropout(a), b)
    loss(dropout(pieces[0][0]), labels[:PIECE])

    with pytest.raises(RuntimeError, match="dropout must be seeded"):
        loss(dropout(pieces[1][0]), labels[PIECE:])


def test_dropout_that_is_seeded_before_each_piece_is_exact() -> None:
    x, labels = torch.randn(4, 2, 512, dtype=torch.float64), torch.randint(0, 2, (4, 512))
    x.requires_grad_()
    dropout, loss = nn.Dropout(0.5), WholeBatch(DiceLoss(batch=True))
    dropped = []
    for seed, (a, b) in enumerate(split(x, labels)):
        torch.manual_seed(seed)
        dropped.append(dropout(a))
        loss.add(dropped[-1], b)
    for seed, (a, b) in enumerate(split(x, labels)):
        torch.manual_seed(seed)
        loss(dropout(a), b).backward()

    at_once = torch.autograd.grad(DiceLoss(batch=True)(torch.cat(dropped), labels), x)[0]
    assert_close(x.grad, at_once)


def test_pieces_that_do_not_come_back_are_noticed() -> None:
    x, labels = torch.randn(4, 2, 8), torch.randint(0, 2, (4, 8))
    loss = WholeBatch(DiceLoss())
    loss.add(x[:1], labels[:1])
    loss.add(x[1:], labels[1:])
    loss(x[:1], labels[:1])

    with pytest.raises(RuntimeError, match="1 are missing"):
        loss.add(x, labels)
    loss.reset()
    loss.add(x[:1], labels[:1])
    with pytest.raises(RuntimeError, match="piece 1 had 1 samples and now has 3"):
        loss(x[1:], labels[1:])


def test_what_is_no_sum_is_refused() -> None:
    x, labels = torch.randn(2, 2, 4, 4), torch.randint(0, 2, (2, 4, 4))
    with pytest.raises(TypeError, match=r"losses\['cl'\] must be made of counts"):
        WholeBatch(WeightedSum({"cl": (1.0, ClDiceLoss())})).add(x, labels)
    with pytest.raises(TypeError, match="loss must be made of counts"):
        WholeBatch(dice_loss)(x, labels)
    with refuses("top_k"):
        WholeBatch(CrossEntropyLoss(top_k=0.5)).add(x, labels)
    with refuses("reduction"):
        WholeBatch(CrossEntropyLoss(reduction="none"))(x, labels)
    with refuses("loss"):
        WholeBatch(DiceLoss(reduction="none"))(x, labels)
    with refuses("gradients"):
        WholeBatch(DiceLoss(), gradients="average")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    folder = tmp_path_factory.mktemp("two")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SCRIPT), str(rank), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [json.loads(output) for output, _ in outputs]


@pytest.mark.parametrize(
    ("way", "most"),
    [
        ("one piece each", 1e-12),
        ("pieces of unequal number", 1e-12),
        ("pieces of unequal number, float32", 1e-6),
        ("through a stepper", 1e-12),
        ("processes in step with each other", 0.0),
    ],
)
def test_processes_give_the_gradient_of_all_samples(
    found: list[dict[str, float]], way: str, most: float
) -> None:
    assert max(result[way] for result in found) <= most


def test_weights_move_alike_in_all_processes(found: list[dict[str, float]]) -> None:
    assert max(result["adaptive weights"] for result in found) < 1e-6


def test_processes_alone_give_another(found: list[dict[str, float]]) -> None:
    assert min(result["mean over processes"] for result in found) > 3e-2


@pytest.mark.parametrize("loss", [FocalLoss, JaccardLoss, TverskyLoss, GeneralizedDiceLoss])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_batch_in_pieces_has_the_loss_of_the_whole(loss: type, reduction: str) -> None:
    options = {} if loss is FocalLoss else {"batch": True}
    part = loss(reduction=reduction, ignore_index=255, **options)
    logits, labels = torch.randn(4, 3, 6, 5).double(), torch.randint(0, 3, (4, 6, 5))
    labels[0, :3] = 255
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    whole = WholeBatch(part)

    for piece, target in zip(x.split(1), labels.split(1), strict=True):
        whole.add(piece, target)
    for piece, target in zip(x.split(1), labels.split(1), strict=True):
        value = whole(piece, target)
        value.backward()

    part(y, labels).backward()
    assert_close(value, part(y, labels))
    assert_close(x.grad, y.grad)
