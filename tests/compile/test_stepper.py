"""A compiled model is the same model: same object, same names, same checkpoints."""

from functools import partialmethod
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medkit.testing import assert_close
from medkit.train import CheckpointManager, FitResult, ModelEma, Stepper, fit


def _batches() -> list[dict[str, Tensor]]:
    x = torch.linspace(-1, 1, 16).reshape(4, 4, 1)
    return [{"image": part, "label": part.square()} for part in x]


def _run(folder: Path, epochs: int, *, compiled: bool) -> tuple[nn.Module, FitResult]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    ema = ModelEma(model, decay=0.5)
    stepper = Stepper(model, optimizer, ema=ema, compile=compiled)
    loss = nn.functional.mse_loss
    result = fit(
        model,
        _batches(),
        loss,
        stepper=stepper,
        epochs=epochs,
        checkpoints=CheckpointManager(folder, fsync=False),
        resume=True,
    )
    return model, result


@pytest.fixture(autouse=True)
def _traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_in_place = partialmethod(nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(nn.Module, "compile", compile_in_place)


def test_a_compiled_run_is_the_plain_one(tmp_path: Path) -> None:
    plain, before = _run(tmp_path / "plain", 2, compiled=False)
    compiled, after = _run(tmp_path / "compiled", 2, compiled=True)

    assert compiled._compiled_call_impl is not None
    assert_close(list(after.history.steps["loss"]), list(before.history.steps["loss"]))
    assert list(compiled.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("compiled", [True, False])
def test_a_run_goes_on_with_and_without_compiling(tmp_path: Path, compiled: bool) -> None:
    _, whole = _run(tmp_path / "whole", 3, compiled=False)
    _run(tmp_path / "parts", 2, compiled=compiled)

    _, rest = _run(tmp_path / "parts", 3, compiled=not compiled)

    assert_close(list(rest.history.steps["loss"]), list(whole.history.steps["loss"]))
