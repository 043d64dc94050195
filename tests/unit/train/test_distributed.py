"""Alone, everything is as if there were no others; the rest is in test_processes."""

import pytest
import torch
from torch import nn

from medkit.train import (
    DistInfo,
    SumMetrics,
    gather_objects,
    init_distributed,
    is_main,
    sum_across,
    unwrap,
    wrap_model,
)
from medkit.train._distributed import _place

SLURM = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
MEETING = {"MASTER_ADDR": "node", "MASTER_PORT": "29500"}


def test_alone_nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    model = nn.Linear(1, 1)

    assert init_distributed() == DistInfo(0, 1, 0, "cpu", adopted=False)
    assert not torch.distributed.is_initialized()
    assert wrap_model(model) is model
    assert is_main()
    assert gather_objects(3) == [3]
    assert sum_across({"a": 2}) == {"a": 2}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, (3, 4, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4", **SLURM}, (3, 4, 0)),
        ({**SLURM, **MEETING}, (5, 8, 1)),
        ({**SLURM, "SLURM_NTASKS": "1"}, (0, 1, 0)),
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_ID"}, (0, 1, 0)),
    ],
)
def test_the_place_is_read_from_torchrun_or_slurm(
    environment: dict[str, str], place: tuple[int, int, int]
) -> None:
    found = _place(environment)

    assert (found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"]) == place


def test_slurm_without_a_meeting_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="MASTER_ADDR and MASTER_PORT must be set under srun"):
        _place(SLURM)


def test_unwrapping_finds_the_model_inside() -> None:
    model = nn.Linear(1, 1)

    assert unwrap(torch.compile(model, backend="eager")) is model  # type: ignore[arg-type]
    assert unwrap(model) is model


def test_sums_are_exact_and_start_anew() -> None:
    sums = SumMetrics()
    for _ in range(3):
        sums.add({"n": torch.tensor(2**53 + 1), "x": torch.tensor(0.1), "v": torch.ones(2)})

    result = sums.reduce()

    assert result["n"] == 3 * (2**53 + 1)
    assert result["x"] == pytest.approx(3 * float(torch.tensor(0.1)), rel=1e-15)
    assert torch.equal(result["v"], torch.full((2,), 3.0, dtype=torch.float64))  # type: ignore[arg-type]
    sums.reset()
    assert sums.reduce() == {}


@pytest.mark.usefixtures("unhooked")
def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="backend must be one of"):
        init_distributed(backend="mpi")  # type: ignore[arg-type]
