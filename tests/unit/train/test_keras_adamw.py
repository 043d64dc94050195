"""The optimizer walks the path that Keras' AdamW walks."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medkit.testing import assert_close
from medkit.train import KerasAdamW, Stepper, WarmupCosine, param_groups

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "adamw" / "adamw.npz")


def _gradient(step: int, size: int = 7) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.sin(np.arange(size) + step) * 10.0 ** -np.arange(size)


def _walk(optimizer: torch.optim.Optimizer, weight: Tensor, steps: range) -> np.ndarray[Any, Any]:
    path = []
    for step in steps:
        weight.grad = torch.tensor(_gradient(step), dtype=weight.dtype)
        optimizer.step()
        path.append(weight.detach().numpy().copy())
    return np.array(path)


def _weight(dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(GOLDEN["w0"]).to(dtype))


def test_the_path_is_keras() -> None:
    weight = _weight()

    ours = _walk(KerasAdamW([weight], lr=1e-2, weight_decay=1e-2), weight, range(50))

    assert_close(ours, GOLDEN["traj"], atol=5e-6, rtol=0)


def test_torchs_adamw_walks_another() -> None:
    weight = _weight()
    optimizer = torch.optim.AdamW([weight], lr=1e-2, weight_decay=1e-2, eps=1e-7)

    assert np.abs(_walk(optimizer, weight, range(50)) - GOLDEN["traj"]).max() > 1e-3


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_path_is_the_formula(amsgrad: bool) -> None:
    lr, decay, (beta1, beta2), eps = 0.03, 0.2, (0.8, 0.95), 1e-3
    weight = _weight(torch.float64)
    optimizer = KerasAdamW(
        [weight], lr=lr, weight_decay=decay, betas=(beta1, beta2), eps=eps, amsgrad=amsgrad
    )
    ours = _walk(optimizer, weight, range(20))

    for i, start in enumerate(GOLDEN["w0"].astype(np.float64)):
        w, m, v, top = float(start), 0.0, 0.0, 0.0
        for t in range(1, 21):
            g = float(_gradient(t - 1)[i])
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
            top = max(top, v) if amsgrad else v
            rate = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
            w = w - lr * decay * w - rate * m / (math.sqrt(top) + eps)
            assert ours[t - 1, i] == pytest.approx(w, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_live_keras_walks_with_it(amsgrad: bool) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("keras runs on another backend")
    matrix, bias = torch.randn(4, 3), torch.randn(3)
    theirs = [keras.Variable(x.numpy(), name=n) for x, n in ((matrix, "kernel"), (bias, "bias"))]
    peer = keras.optimizers.AdamW(learning_rate=0.02, weight_decay=0.1, amsgrad=amsgrad)
    peer.exclude_from_weight_decay(var_names=["bias"])
    peer.build(theirs)
    ours = [nn.Parameter(matrix.clone()), nn.Parameter(bias.clone())]
    groups = [
        {"params": ours[:1], "weight_decay": 0.1},
        {"params": ours[1:], "weight_decay": 0.0},
    ]
    optimizer = KerasAdamW(groups, lr=0.02, amsgrad=amsgrad)

    for step in range(20):
        gradients = [torch.randn(p.shape) * 10.0 ** (-step % 8) for p in ours]
        for parameter, gradient in zip(ours, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        peer.apply(gradients, theirs)

    for parameter, variable in zip(ours, theirs, strict=True):
        value = variable.value.detach().cpu().numpy()
        # Keras computes the powers of beta in float32: 1 - 0.999 is 1.3e-5 off
        assert_close(parameter.detach().numpy(), value, atol=5e-6, rtol=0)


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    whole = _weight()
    path = _walk(KerasAdamW([whole], lr=1e-2), whole, range(30))
    first = _weight()
    optimizer = KerasAdamW([first], lr=1e-2)
    _walk(optimizer, first, range(11))

    second = nn.Parameter(first.detach().clone())
    resumed = KerasAdamW([second], lr=99.0)
    resumed.load_state_dict(optimizer.state_dict())

    assert np.array_equal(_walk(resumed, second, range(11, 30)), path[11:])


def test_many_tensors_walk_as_each_alone() -> None:
    together = [_weight() for _ in range(3)]
    optimizer = KerasAdamW(together, lr=1e-2)
    for step in range(5):
        for i, weight in enumerate(together):
            weight.grad = None if i == 2 else torch.tensor(_gradient(step + i)).float()
        optimizer.step()

    for i in range(2):
        alone = _weight()
        _walk(KerasAdamW([alone], lr=1e-2), alone, range(i, i + 5))
        assert torch.equal(together[i], alone)
    assert torch.equal(together[2], _weight())


def test_it_fits_groups_stepper_and_schedule() -> None:
    model = nn.Sequential(nn.Linear(2, 8), nn.LayerNorm(8), nn.Linear(8, 1))
    optimizer = KerasAdamW(param_groups(model, 0.1), lr=0.05)
    schedule = WarmupCosine(optimizer, 60)
    stepper = Stepper(model, optimizer, scheduler=schedule, accumulate=2, clip_norm=1.0)
    x = torch.randn(16, 2)
    losses = []
    for _ in range(30):
        for part, _ in stepper.micro_batches(x.split(4)):
            stepper.backward((model(part) - part.sum(1, keepdim=True)).square().mean())
            losses.append(stepper.step().loss)

    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert losses[-1] < 0.1 * losses[1]


def test_a_closure_gives_the_loss() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = KerasAdamW([weight], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 1.0
    assert weight.item() < 1.0


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(3, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()

    with pytest.raises(RuntimeError, match="takes dense gradients"):
        KerasAdamW(table.parameters()).step()


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must be zero or positive; got -1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be zero or positive"),
        ({"betas": (0.9, 1.0)}, r"betas must be in \[0, 1\)"),
        ({"eps": -1.0}, "eps must be zero or positive"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KerasAdamW([_weight()], **options)
