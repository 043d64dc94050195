"""Keeps the ratios that the benchmarks print, for docs/compare.md.

A script calls :func:`record` beside each ratio it prints. Run alone, nothing more happens; under
``benchmarks/compare.py`` the ratios go to the file that ``MEDKIT_BENCHMARK_RECORD`` names.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "MEDKIT_BENCHMARK_RECORD"


def record(what: str, measure: str, values: Mapping[str, float], *, ours: str = "medkit") -> None:
    """Add how many times medkit's value each other one is.

    Args:
        what: The task, as the page names it.
        measure: What the values are: ``"time"``, ``"peak memory"``, ``"saved memory"``.
        values: A value of each library, in any unit, smaller where it is better. Names that begin
            with "medkit" are ways to run medkit and are left out.
        ours: The key of the one that the others are set beside.
    """
    for peer, value in values.items():
        if not peer.startswith("medkit"):
            note(what, peer=peer, measure=measure, ratio=value / values[ours])


def note(what: str, **columns: object) -> None:
    """Add a row of a table that is not of ratios."""
    target = os.environ.get(VARIABLE)
    if target is not None:
        row = {"what": what, "script": Path(sys.argv[0]).name, **columns}
        with Path(target).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
