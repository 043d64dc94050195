"""However two processes are started, and whoever is killed, a run ends in the same numbers."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT, IN_RAY = (Path(__file__).with_name(name) for name in ("launched.py", "in_ray.py"))
ONE_MACHINE = ("--standalone", "--nproc-per-node", "2")
TIMEOUT = 400


def _start(*command: object) -> subprocess.Popen[str]:
    quiet = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *map(str, command)],
        env={**os.environ, **quiet},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _results(folder: Path, *processes: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for all to end well; return what the run left."""
    try:
        outputs = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return {**result, "adopted": (folder / "adopted").read_text()}


def _launch(
    folder: Path,
    *options: object,
    fatal_step: int = 0,
    joined_by: str = "nobody",
    strategy: str = "auto",
) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    patience = ("--max-restarts", 2, "--monitor-interval", 0.1)
    launcher = ("-m", "medkit.train.launch", *options, *patience)
    return _start(*launcher, SCRIPT, folder, fatal_step, joined_by, strategy)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    return _results(folder, _launch(folder, *ONE_MACHINE))


def test_both_processes_end_with_the_same_weights_and_their_own_random_state(
    whole: dict[str, Any],
) -> None:
    (first, drawn), (second, drawn_too) = whole["found"]

    assert (whole["size"], whole["adopted"]) == (2, "False")
    assert first == second
    assert drawn != drawn_too
    assert len(whole["log"].splitlines()) == 1 + 9


def test_a_killed_process_costs_time_and_nothing_else(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    assert _results(tmp_path, _launch(tmp_path, *ONE_MACHINE, fatal_step=5)) == whole
    assert (tmp_path / "killed").exists()


def test_so_it_is_on_two_machines(tmp_path: Path, whole: dict[str, Any]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{free.getsockname()[1]}"
    where = ("--rdzv-backend", "c10d", "--rdzv-endpoint", meeting, "--local-addr", "127.0.0.1")
    machine = ("--nnodes", 2, "--nproc-per-node", 1, "--rdzv-id", "run", *where)
    agents = [_launch(tmp_path, *machine, fatal_step=5) for _ in range(2)]

    assert _results(tmp_path, *agents) == whole
    assert (tmp_path / "killed").exists()


def test_a_process_killed_while_it_saves_its_parts_costs_no_more(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "killed")]
    runs = [
        _results(folder, _launch(folder, *ONE_MACHINE, fatal_step=step, strategy="fsdp"))
        for folder, step in zip(folders, (0, 4), strict=True)
    ]

    assert runs[0] == runs[1]
    assert (folders[1] / "killed").exists()
    assert [path.name for path in (folders[1] / "run").glob(".*")] == []


@pytest.mark.parametrize(
    ("library", "joined_by"), [("lightning_fabric", "fabric"), ("accelerate", "accelerate")]
)
def test_processes_that_another_library_joined_are_adopted(
    tmp_path: Path, whole: dict[str, Any], library: str, joined_by: str
) -> None:
    pytest.importorskip(library, exc_type=ImportError)

    found = _results(tmp_path, _launch(tmp_path, *ONE_MACHINE, joined_by=joined_by))

    assert found == {**whole, "adopted": "True"}


@pytest.mark.slow
def test_so_are_the_workers_of_ray(tmp_path: Path, whole: dict[str, Any]) -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    pytest.importorskip("pyarrow", exc_type=ImportError)

    assert _results(tmp_path, _start(IN_RAY, tmp_path)) == {**whole, "adopted": "True"}
