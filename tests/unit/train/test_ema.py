"""The average is its formula, timm's and torch's, and goes on after a restart."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import _torchvision_shim
from medkit.testing import assert_close
from medkit.train import ModelEma, Stepper, WarmupCosine, load_weights, save_weights


def _model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.Conv3d(4, 2, 1))


def _walk(model: nn.Module, number: int) -> None:
    """Move all weights and statistics somewhere that depends on ``number`` alone."""
    torch.manual_seed(number)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.add_(torch.randn(value.shape) * 0.1)
            else:
                value.add_(1)


@pytest.mark.parametrize(
    "options",
    [
        {"decay": 0.9},
        {"decay": 0.95, "warmup": True},
        {"decay": 0.95, "warmup": True, "gamma": 2.0, "power": 0.8, "update_after": 3},
    ],
)
def test_the_average_is_timms(options: dict[str, float]) -> None:
    _torchvision_shim.install()
    timm = pytest.importorskip("timm.utils")
    model = _model()
    renamed = {"warmup": "use_warmup", "gamma": "warmup_gamma", "power": "warmup_power",
               "update_after": "update_after_step", "decay": "decay"}  # fmt: skip
    theirs = timm.ModelEmaV3(model, **{renamed[k]: v for k, v in options.items()})
    ours = ModelEma(model, buffers="ema", **options)  # type: ignore[arg-type]

    for step in range(1, 13):
        _walk(model, step)
        theirs.update(model, step=step)
        ours.update(model)

    expected = theirs.module.state_dict()
    assert list(ours.average.keys() ^ expected.keys()) == []
    for name, value in ours.average.items():
        assert_close(value, expected[name], rtol=1e-6, atol=1e-7)


def test_the_average_is_torchs() -> None:
    model = _model()
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    ours = ModelEma(model, decay=0.8)

    for step in range(10):
        _walk(model, step)
        theirs.update_parameters(model)
        ours.update(model)

    for name, value in theirs.module.named_parameters():
        assert_close(ours.average[name], value, rtol=1e-6, atol=1e-7)


def test_the_average_is_its_closed_form() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    ema = ModelEma(model, decay=0.9, warmup=True, gamma=3.0, power=0.5, update_after=2)
    values = [math.sin(n) for n in range(1, 9)]
    average = 0.0
    for n, value in enumerate(values, start=1):
        nn.init.constant_(model.weight, value)
        ema.update(model)
        k = max(0, n - 1 - 2)
        d = min(0.9, 1 - (1 + k / 3.0) ** -0.5)
        average = d * average + (1 - d) * value
        assert ema.decay_at(n) == pytest.approx(d, rel=1e-12)
        assert ema.average["weight"].item() == pytest.approx(average, rel=1e-12)


@pytest.mark.parametrize("buffers", ["copy", "ema"])
def test_buffers_are_copied_or_averaged(buffers: str) -> None:
    model = _model()
    ema = ModelEma(model, decay=0.5, buffers=buffers)  # type: ignore[arg-type]
    means = []
    for step in range(3):
        _walk(model, step)
        means.append(model[1].running_mean.clone())  # type: ignore[index]
        ema.update(model)

    exact = means[2] if buffers == "copy" else (means[0] + means[1]) / 4 + means[2] / 2
    assert_close(ema.average["1.running_mean"], exact)
    assert ema.average["1.num_batches_tracked"].item() == 3


def test_half_precision_is_averaged_in_float32() -> None:
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.constant_(model.weight, 1.0)
    ema = ModelEma(model, decay=0.999)
    ema.update(model)
    nn.init.constant_(model.weight, 2.0)

    for _ in range(10):
        ema.update(model)

    assert ema.average["weight"].dtype == torch.float32
    assert_close(ema.average["weight"], [[2 - 0.999**10]], rtol=1e-5)
    with ema.swap(model):
        assert model.weight.dtype == torch.bfloat16


def test_it_may_live_in_another_precision() -> None:
    ema = ModelEma(_model(), device="cpu", dtype=torch.float64)

    ema.update(_model())

    assert ema.average["0.weight"].dtype == torch.float64


def test_swapping_gives_the_average_and_then_the_very_same_bits() -> None:
    model = _model()
    ema = ModelEma(model, decay=0.5)
    for step in range(3):
        _walk(model, step)
        ema.update(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    inside = {}

    def fail_inside() -> None:
        with ema.swap(model):
            inside.update({name: value.clone() for name, value in model.state_dict().items()})
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()

    assert all(torch.equal(inside[name], ema.average[name]) for name in inside)
    assert not torch.equal(inside["0.weight"], before["0.weight"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_inside_a_swap_nothing_can_be_saved_updated_or_swapped() -> None:
    model = _model()
    ema = ModelEma(model)
    with ema.swap(model):
        for forbidden in (
            ema.state_dict,
            lambda: ema.update(model),
            lambda: ema.swap(model).__enter__(),
        ):
            with pytest.raises(RuntimeError, match=r"leave swap\(\) first"):
                forbidden()
    ema.state_dict()


def test_wrappers_and_tied_weights_do_not_matter(tmp_path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(2, 2, bias=False)
            self.b = nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight
            self.register_buffer("constant", torch.ones(1), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    model = Tied()
    ema = ModelEma(torch.compile(model, backend="eager"))  # type: ignore[arg-type]
    ema.update(model)
    save_weights(ema.average, tmp_path / "ema.pt")
    fresh = Tied()
    load_weights(tmp_path / "ema.pt", fresh)

    assert set(ema.average) == {"a.weight", "b.weight"}
    assert torch.equal(fresh.a.weight, model.a.weight)
    ema.copy_to(fresh)


def test_another_model_is_refused() -> None:
    ema = ModelEma(_model())

    for other in (nn.Linear(1, 1), nn.Sequential(*_model(), nn.Linear(1, 1))):
        with pytest.raises(ValueError, match="model must be the one that was averaged; got other"):
            ema.update(other)
    with pytest.raises(ValueError, match="the one that was averaged"):
        ema.load_state_dict({"num_updates": 1, "average": {}})


def _training(seed: int) -> tuple[nn.Module, Stepper]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    ema = ModelEma(model, decay=0.99, warmup=True)
    return model, Stepper(model, optimizer, scheduler=WarmupCosine(optimizer, 40), ema=ema)


def _steps(model: nn.Module, stepper: Stepper, count: range) -> None:
    for number in count:
        x = torch.from_numpy(np.random.default_rng(number).standard_normal((4, 3))).float()
        stepper.backward(model(x).square().mean())
        stepper.step()


def test_a_resumed_average_is_bit_identical() -> None:
    model, whole = _training(0)
    _steps(model, whole, range(20))
    first_model, first = _training(0)
    _steps(first_model, first, range(7))

    second_model, second = _training(9)
    second_model.load_state_dict(first_model.state_dict())
    second.load_state_dict(first.state_dict())
    _steps(second_model, second, range(7, 20))

    assert whole.ema is not None
    assert second.ema is not None
    assert second.ema.num_updates == 20
    assert all(torch.equal(second.ema.average[n], v) for n, v in whole.ema.average.items())


def test_a_skipped_step_does_not_move_it() -> None:
    model = nn.Linear(1, 1)
    ema = ModelEma(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stepper = Stepper(model, optimizer, ema=ema, nonfinite="skip")

    stepper.backward(model(torch.tensor([[math.nan]])).sum())

    assert stepper.step().skipped
    assert ema.num_updates == 0


@pytest.mark.usefixtures("unhooked")
def test_options_are_checked() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\]; got 2"):
        ModelEma(model, decay=2)
    with pytest.raises(ValueError, match="buffers must be one of 'copy', 'ema'; got 'drop'"):
        ModelEma(model, buffers="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gamma must be positive; got 0"):
        ModelEma(model, gamma=0)
    with pytest.raises(ValueError, match="update_after must be at least 0; got -1"):
        ModelEma(model, update_after=-1)
