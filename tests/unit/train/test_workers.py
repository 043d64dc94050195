"""A worker that dies, fails or hangs is an error that says so, and costs no more than time."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("failing_workers.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("workers")
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("killed", r"DataLoader worker (\(pid.*\) )?(is killed by signal: Killed|exited unexpec)"),
        ("exception", r"(?s)in __getitem__.*KeyError: 'case_013 has no label'"),
        ("hang", r"DataLoader timed out after 1"),
    ],
)
def test_the_error_says_what_happened(found: dict[str, Any], trouble: str, message: str) -> None:
    assert re.search(message, found[trouble]["error"]), found[trouble]["error"]


@pytest.mark.parametrize("trouble", ["killed", "exception", "hang"])
def test_the_run_goes_on_from_a_whole_checkpoint_to_the_same_bits(
    found: dict[str, Any], trouble: str
) -> None:
    assert found[trouble]["problems"] == []
    assert found[trouble]["same"]
