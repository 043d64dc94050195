"""A model in parts is saved in parts, and goes on in any number of processes."""

from pathlib import Path
from typing import Any

import pytest

from unit.train.side_by_side import run_together

SCRIPT = Path(__file__).with_name("shared_checkpoint.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def saved(folder: Path) -> list[dict[str, Any]]:
    return run_together(SCRIPT, folder, "2", "save")


@pytest.fixture(scope="module")
def alone(folder: Path, saved: list[dict[str, Any]]) -> dict[str, Any]:
    return run_together(SCRIPT, folder, "1", "alone", count=1)[0]


def test_every_process_writes_its_parts_into_one_checkpoint(saved: list[dict[str, Any]]) -> None:
    shards = ["state/.metadata", "state/__0_0.distcp", "state/__1_0.distcp"]

    assert [found["files"] for found in saved] == [["meta.json", "state.pt", *shards]] * 2


def test_two_processes_go_on_bit_for_bit(saved: list[dict[str, Any]]) -> None:
    assert [(found["step"], found["restored"], found["ended"]) for found in saved] == [
        (3, True, True)
    ] * 2


def test_parts_may_be_put_together_instead(saved: list[dict[str, Any]]) -> None:
    files = ["averaged_weights.pt", "meta.json", "state.pt", "weights.pt"]

    assert [found["held"] for found in saved] == [files] * 2


def test_all_hear_what_the_disk_of_one_said_and_nothing_is_lost(
    saved: list[dict[str, Any]],
) -> None:
    for found in saved:
        assert found["refused"] == "[Errno 27] File too large (process 1)"
        assert (found["left"], found["latest"]) == (["step_000000001"], 1)


def test_a_damaged_part_is_named_and_the_checkpoint_before_it_used(
    saved: list[dict[str, Any]],
) -> None:
    assert [(found["fallback"], found["intact"]) for found in saved] == [(3, True)] * 2
    assert saved[0]["said"][0].endswith("step_000000005: state/__1_0.distcp is damaged")


def test_one_process_goes_on_from_the_parts_of_two(alone: dict[str, Any]) -> None:
    assert alone["restored"]
    assert alone["ended"] < 1e-6


def test_the_parts_become_one_weight_file(alone: dict[str, Any]) -> None:
    assert alone["merged"]
    assert alone["metadata"] == {"step": 3}


def test_so_do_the_parts_of_the_average(alone: dict[str, Any]) -> None:
    assert alone["averaged"] == [True, True]  # of two processes, and of one that saved it whole


@pytest.mark.usefixtures("alone")
def test_four_processes_go_on_from_two_and_from_one(folder: Path) -> None:
    for found in run_together(SCRIPT, folder, "4", "resume", count=4):
        assert found["run"]
        assert found["alone"]
        assert max(found["run ended"], found["alone ended"]) < 1e-6
