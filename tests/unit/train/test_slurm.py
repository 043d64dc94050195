"""The script and the batch file of the launching guide, with stand-ins for Slurm's commands."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parents[3] / "docs" / "guides" / "launching.md").read_text()
SCRIPT = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)[0]
BATCH_FILE = re.findall(r"^```sh\n(#!/bin/bash.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)[0]
SRUN = """#!/bin/bash
export SLURM_STEP_ID=0 SLURM_NTASKS=2
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" & processes+=($!)
done
for process in "${processes[@]}"; do wait "$process" || exit 1; done
"""
SCONTROL = """#!/bin/bash
[ "$1" = show ] && echo 127.0.0.1 && echo other
[ "$1" = requeue ] && touch requeued
exit 0
"""


def _free_port() -> int:
    for port in range(20_000, 30_000):
        with socket.socket() as free:
            if free.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no port is free")


def _submit(folder: Path, script: str) -> None:
    commands = folder / "commands"
    commands.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    (folder / "train.py").write_text(script)
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])
    job = {"SLURM_JOB_ID": str(_free_port() - 20_000), "SLURM_JOB_NODELIST": "node[1-2]"}
    quiet = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        ["bash", "-c", BATCH_FILE],
        cwd=folder,
        env={**os.environ, **job, **quiet, "PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Slurm runs on Linux")
def test_the_job_trains_in_two_processes_and_ends(tmp_path: Path) -> None:
    place = "\n(Path('size') / str(place.rank)).write_text(str(place.world_size))\n"
    (tmp_path / "size").mkdir()

    _submit(tmp_path, SCRIPT + place)

    assert sorted(path.name for path in (tmp_path / "size").iterdir()) == ["0", "1"]
    assert {path.read_text() for path in (tmp_path / "size").iterdir()} == {"2"}
    assert (tmp_path / "runs/a/step_000000012/meta.json").exists()
    assert not (tmp_path / "requeued").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Slurm runs on Linux")
def test_a_job_that_is_not_done_queues_again(tmp_path: Path) -> None:
    _submit(tmp_path, "")

    assert (tmp_path / "requeued").exists()
