"""Starts a script in several processes that find each other, and collects what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TIMEOUT = 240


def run_together(
    script: Path, folder: Path, *arguments: str, count: int = 2
) -> list[dict[str, Any]]:
    """Run ``script <rank> <folder> <arguments>`` in each process; return the JSON each writes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), str(rank), str(folder), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=TIMEOUT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count, outputs
    return [json.loads(output) for output, _ in outputs]
