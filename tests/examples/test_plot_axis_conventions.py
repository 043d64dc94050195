"""The example runs, and each panel shows the same voxel under its mark."""

import runpy
from pathlib import Path

import pytest
from matplotlib.figure import Figure

pytest.importorskip("nilearn")

SCRIPT = Path(__file__).parents[2] / "examples" / "plot_axis_conventions.py"


def test_every_panel_marks_the_same_voxel(tmp_path: Path) -> None:
    scope = runpy.run_path(str(SCRIPT))

    figure, t1 = scope["figure"], scope["t1"]
    assert isinstance(figure, Figure)
    expected = t1.data[0, scope["d"], scope["h"], scope["w"]].item()
    for panel in figure.axes:
        (mark,) = panel.lines
        (column,), (row,) = mark.get_data()
        assert panel.images[0].get_array()[row, column] == expected
    figure.savefig(tmp_path / "a.png")
