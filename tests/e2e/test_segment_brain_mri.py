"""The demo learns: a short training on the real MRI beats thresholds on what it never saw."""

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("nilearn")
pytest.importorskip("skimage")

SCRIPT = Path(__file__).parents[2] / "examples" / "segment_brain_mri.py"


@pytest.mark.slow
def test_short_training_beats_otsu_on_every_tissue_of_the_unseen_part(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("segment_brain_mri", SCRIPT)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    example.main(["--epochs", "3", "--steps", "100", "--device", "cpu", "--out", str(tmp_path)])

    scores = json.loads((tmp_path / "metrics.json").read_text())["dice of the unseen part"]
    network, thresholds = scores["segformer3d"], scores["otsu"]
    assert thresholds["mean"] > 0.85  # a baseline that means something
    assert all(network[tissue] > thresholds[tissue] for tissue in thresholds)
