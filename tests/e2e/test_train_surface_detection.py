"""The surface example learns: a short training beats the best threshold on scrolls it never saw."""

import json
from pathlib import Path

import pytest

from examples.surface_in_processes import load_example

pytest.importorskip("matplotlib")


@pytest.mark.slow
def test_short_training_beats_the_best_threshold_on_unseen_scrolls(tmp_path: Path) -> None:
    load_example().main(["--epochs", "30", "--device", "cpu", "--out", str(tmp_path)])

    scores = json.loads((tmp_path / "report.json").read_text())["unseen volumes"]
    network, threshold = scores["network"], scores["threshold"]
    assert threshold["dice"] > 0.65  # a baseline that means something
    assert network["dice"] > threshold["dice"] + 0.05
    assert network["score"] > threshold["score"] + 0.05
