"""The bar says what is going on to those who look, and nothing to others."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medkit.train import Progress, _progress, memory_stats


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), _Terminal()])
@pytest.mark.parametrize("show", [True, False])
def test_it_writes_where_it_may(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, show: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    stream.truncate(0)

    with Progress(2, show=show) as bar:
        bar.update({})

    assert bool(stream.getvalue()) == show


def test_a_file_gets_plain_lines_now_and_then_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])

    with Progress(100, initial=10) as bar:
        for step in range(70):
            now[0] = float(step)
            bar.update({"loss": 1 / (step + 1)}, label=f"epoch {1 + step // 40}/2")

    assert stream.getvalue().splitlines() == [
        "epoch 1/2: 11/100 [00:00<?, ?it/s, loss 1]",
        "epoch 1/2: 41/100 [00:30<00:57,  1.03it/s, loss 0.03226]",
        "epoch 2/2: 71/100 [01:00<00:28,  1.02it/s, loss 0.01639]",
        "epoch 2/2: 80/100 [01:09<00:19,  1.01it/s, loss 0.01429]",
    ]


def test_the_last_line_is_not_written_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    with Progress(None) as bar:
        bar.update({"loss": 0.5})
    bar.close()

    assert stream.getvalue().count("\n") == 1


def test_it_shows_label_numbers_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)

    with Progress(4, initial=1, every_s=0.0) as bar:
        bar.update({"loss": 0.123456, "dice": 0.75}, label="epoch 1/2")
        bar.update({"loss": 0.1, "dice": 0.75})

    text = stream.getvalue()
    assert bar.done == 3
    for part in ("epoch 1/2", "3/4", "loss 0.1235", "dice 0.75", "<00:0"):
        assert part in text


def test_it_writes_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)

    with Progress(1000, every_s=3600.0) as bar:
        for _ in range(1000):
            bar.update({"loss": 1.0})

    assert stream.getvalue().count("\r") <= 4


def test_memory_of_the_process_is_counted() -> None:
    code = """
import torch
from medkit.train import memory_stats
before = memory_stats()["resident"]
block = torch.ones(64 * 2**20 // 4)
print((memory_stats()["resident"] - before) / block.nbytes)
"""
    fresh = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert float(fresh.stdout) > 0.9


def test_memory_of_a_gpu_is_its_allocators(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")
    for number, name in enumerate(names):
        monkeypatch.setattr(torch.cuda, name, lambda _device, number=number: number)

    assert memory_stats(device="cuda") == {
        "allocated": 0, "peak_allocated": 1, "reserved": 2, "peak_reserved": 3,
    }  # fmt: skip


def test_where_the_system_tells_nothing_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path, mode: str) -> None:
        raise FileNotFoundError(path, mode)

    monkeypatch.setattr(Path, "open", closed)
    assert list(memory_stats()) == ["peak_resident"]  # as on macOS

    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory_stats() == {}  # as on Windows
