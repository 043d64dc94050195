"""docs/compare.md is what benchmarks/compare.py writes from the figures on record."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("compare")


def test_page_is_written_from_the_record(compare) -> None:
    results = json.loads(compare.RESULTS.read_text())

    assert compare.PAGE.read_text() == compare.page(results)


def test_a_ratio_below_one_is_listed_as_a_loss(compare) -> None:
    def row(what: str, ratio: float) -> dict[str, object]:
        return {"what": what, "peer": "P", "measure": "time", "ratio": ratio, "script": "x.py"}

    rows = [row("slow", 0.5), row("fast", 2.0)]
    part = {"date": "2000-01-01", "machine": "m", "versions": "v", "rows": rows}
    lost = compare.page({"x": part}).partition("## Where medkit loses")[2].partition("##")[0]

    assert "| slow | P | time | 0.50 | `x.py` |" in lost
    assert "fast" not in lost
    assert "1 of 2 ratios" in lost


def test_only_what_is_not_medkit_is_recorded(
    compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = importlib.import_module("_record")
    monkeypatch.setenv(recorder.VARIABLE, str(tmp_path / "rows"))

    recorder.record("task", "time", {"medkit": 2.0, "medkit, compiled": 1.0, "peer": 3.0})

    (line,) = (tmp_path / "rows").read_text().splitlines()
    assert json.loads(line)["peer"] == "peer"
    assert json.loads(line)["ratio"] == 1.5
