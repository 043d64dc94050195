"""Two processes step together, skip together and stop together."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from medkit.train import _agreement
from unit.train.side_by_side import run_together

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_together(SCRIPT, tmp_path_factory.mktemp("two"))


def test_accumulation_with_a_ragged_end_equals_one_process(found: list[dict[str, Any]]) -> None:
    assert max(result["together"] for result in found) < 1e-12


def test_weights_balance_unequal_shares(found: list[dict[str, Any]]) -> None:
    assert max(result["weighted"] for result in found) < 1e-12


def test_the_loss_is_that_of_all_processes(found: list[dict[str, Any]]) -> None:
    assert found[0]["loss"] == found[1]["loss"]
    assert found[0]["loss"] == pytest.approx(found[0]["loss_alone"], rel=1e-12)


def test_both_refuse_a_nan_of_one_in_half_precision(found: list[dict[str, Any]]) -> None:
    message = "the loss is nan in optimizer step 1, from"
    assert found[0]["nan"].startswith(f"{message} another process")
    assert found[1]["nan"].startswith(f"{message} batch 0")


def test_both_skip_what_one_cannot_step_with(found: list[dict[str, Any]]) -> None:
    assert [result["skipped"] for result in found] == [[False, True, False]] * 2


def test_both_stop_when_one_is_asked_to(found: list[dict[str, Any]]) -> None:
    assert [result["stopped"] for result in found] == [[False, True, True]] * 2


def test_both_save_the_step_in_which_one_was_asked_to_stop(found: list[dict[str, Any]]) -> None:
    for result in found:
        whole, stopped, resumed = result["interrupted"]
        assert stopped == [4, True, "step_000000004"]
        assert resumed == whole == [12, False, "step_000000012"]
        assert result["same"]


def test_normalisation_over_all_processes_is_put_in_and_asks_for_gpus(
    found: list[dict[str, Any]],
) -> None:
    for result in found:
        kind, message = result["synced"]
        assert kind == "SyncBatchNorm"
        assert "only work with GPU" in message


def test_one_checkpoint_holds_both_and_each_gets_its_own_random_state(
    found: list[dict[str, Any]],
) -> None:
    assert [result["restored"] for result in found] == [True, True]
    assert found[0]["drawn"] != found[1]["drawn"]


def test_both_hear_why_the_first_could_not_save(found: list[dict[str, Any]]) -> None:
    assert "No space left" in found[0]["refused"]
    assert found[1]["refused"] == found[0]["refused"]


def test_sums_over_unequal_shares_are_exact(found: list[dict[str, Any]]) -> None:
    numbers = [0.1 * i for i in range(7)]
    for result in found:
        sums = result["sums"]
        assert (sums["cases"], sums["voxels"], sums["only"]) == (7, 7 * 2**53 + 21, 5)
        assert sums["loss"] == pytest.approx(math.fsum(numbers), rel=1e-15)
    assert found[0]["sums"] == found[1]["sums"]


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Pretend to be one of two processes, the other of which votes 1; keep what was reduced."""
    reduced: list[Tensor] = []

    def all_reduce(tensor: Tensor, op: object = distributed.ReduceOp.SUM) -> None:
        reduced.append(tensor)
        other = torch.ones_like(tensor)
        new = tensor + other if op == distributed.ReduceOp.SUM else torch.maximum(tensor, other)
        tensor.copy_(new)

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_backend", lambda: "gloo")
    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    return reduced


def test_one_vote_is_enough_and_means_are_over_all(pair: list[Tensor]) -> None:
    assert _agreement.any_process(False)
    assert _agreement.means_over_processes(4.0, 0.0) == (2.5, 0.5)
    assert [tensor.device.type for tensor in pair] == ["cpu", "cpu"]


def test_nccl_votes_on_the_gpu(pair: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "get_backend", lambda: "nccl")

    assert _agreement._device() == torch.device("cuda")


def test_alone_the_answer_is_ones_own() -> None:
    assert not _agreement.any_process(False)
    assert _agreement.any_process(True)
    assert _agreement.means_over_processes(4.0, 1.0) == (4.0, 1.0)
