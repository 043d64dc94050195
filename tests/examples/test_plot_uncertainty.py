"""The example runs, finds white matter, and ends in a picture."""

import runpy
from pathlib import Path

import pytest
from matplotlib.figure import Figure

pytest.importorskip("nilearn")

SCRIPT = Path(__file__).parents[2] / "examples" / "plot_uncertainty.py"


def test_the_example_ends_in_a_picture(tmp_path: Path) -> None:
    scope = runpy.run_path(str(SCRIPT))

    assert isinstance(scope["figure"], Figure)
    scope["figure"].savefig(tmp_path / "a.png")
    predicted, target = scope["predicted"] > 0, scope["target"][:, 0] > 0
    dice = 2 * (predicted & target).sum() / (predicted.sum() + target.sum())
    assert dice > 0.7
    information = scope["result"].mutual_information
    assert information.min() >= -1e-6
    assert information.max() > 0.01
