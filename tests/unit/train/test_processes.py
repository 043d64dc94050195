"""Two processes step together, skip together and stop together."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
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


def test_accumulation_with_a_ragged_end_equals_one_process(found: list[dict[str, Any]]) -> None:
    assert max(result["together"] for result in found) < 1e-12


def test_weights_balance_unequal_shares(found: list[dict[str, Any]]) -> None:
    assert max(result["weighted"] for result in found) < 1e-12


def test_both_skip_what_one_cannot_step_with(found: list[dict[str, Any]]) -> None:
    assert [result["skipped"] for result in found] == [[False, True, False]] * 2


def test_both_stop_when_one_is_asked_to(found: list[dict[str, Any]]) -> None:
    assert [result["stopped"] for result in found] == [[False, True, True]] * 2


def test_checkpoints_refuse_what_they_would_not_hold(found: list[dict[str, Any]]) -> None:
    assert [result["refused"] for result in found] == [True, True]
