"""A run of two processes, one of which is killed, ends as one that was left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("launched.py")


def _launch(folder: Path, fatal_step: int) -> dict[str, Any]:
    folder.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [
        sys.executable, "-W", "ignore", "-m", "medkit.train.launch", "--standalone",
        "--nproc-per-node", "2", "--max-restarts", "1", "--monitor-interval", "0.1",
        str(SCRIPT), str(folder), str(fatal_step),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def test_a_killed_process_costs_time_and_nothing_else(tmp_path: Path) -> None:
    whole = _launch(tmp_path / "whole", 0)
    killed = _launch(tmp_path / "killed", 5)

    assert whole["size"] == 2
    (first, drawn), (second, drawn_too) = whole["found"]
    assert first == second
    assert drawn != drawn_too
    assert killed == whole
    assert len(whole["log"].splitlines()) == 1 + 9
