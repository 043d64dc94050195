"""A model cut between two processes trains as a whole one does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medkit.train import wrap_model
from unit.train.side_by_side import run_together

SCRIPT = Path(__file__).with_name("cut_model.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_together(SCRIPT, tmp_path_factory.mktemp("cut"))


@pytest.mark.parametrize("clipped_by", ["norm", "value"])
def test_twenty_steps_end_where_one_process_ends(
    found: list[dict[str, Any]], clipped_by: str
) -> None:
    """With accumulation, clipping and an average that the model bears for a while."""
    assert max(result["trajectories"][clipped_by] for result in found) < 1e-6


def test_running_statistics_are_those_of_ddp(found: list[dict[str, Any]]) -> None:
    assert [result["statistics"] for result in found] == [0.0, 0.0]


def test_narrow_blocks_compute_in_bf16_and_parameters_stay_float32(
    found: list[dict[str, Any]],
) -> None:
    assert [result["narrow"] for result in found] == [["torch.float32", True, "torch.float32"]] * 2


def test_all_refuse_what_one_process_cannot_step_with(found: list[dict[str, Any]]) -> None:
    """None waits for the others while it looks for the parameter to name."""
    first, second = (result["refused"] for result in found)

    assert "the loss is nan" in second[0]
    assert "first at 0.weight" in second[1]
    assert "in another process" in first[1]


def test_fp16_skips_the_window_in_all_processes(found: list[dict[str, Any]]) -> None:
    assert [result["skipped"] for result in found] == [[False, True, False]] * 2
    assert min(result["moved"] for result in found) > 0


def test_alone_a_model_stays_whole() -> None:
    model = nn.Linear(1, 1)

    assert wrap_model(model, strategy="fsdp", mixed_precision="bf16") is model


@pytest.mark.usefixtures("unhooked")
def test_options_are_checked() -> None:
    model = nn.Sequential(nn.Linear(1, 1))

    with pytest.raises(ValueError, match="strategy must be one of"):
        wrap_model(model, strategy="zero")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mixed_precision must be one of 'bf16', 'fp16', None"):
        wrap_model(model, strategy="fsdp", mixed_precision=torch.bfloat16)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="strategy must be 'fsdp' with shard or mixed_precision"):
        wrap_model(model, mixed_precision="bf16")
    with pytest.raises(ValueError, match="shard must be true for at least one module"):
        wrap_model(model, strategy="fsdp", shard=lambda name, _: name == "block")
