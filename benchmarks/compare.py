"""Runs the benchmarks and writes docs/compare.md: where medkit wins and where it loses.

    python benchmarks/compare.py [--only losses readers ...] [--write-only]

Each script runs in a process of its own. Its ratios replace those it gave before in
benchmarks/results.json, together with the day, the machine and the versions, so that one script
can be run again alone; the page is written from that file. ``--write-only`` runs nothing.
"""

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from _record import VARIABLE

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "compare.md"
FEATURES = HERE / "features.md"
NOT_RATIOS = {"compare", "network_table"}
LOSING = 0.95
PEERS = (
    "torch",
    "monai",
    "torchio",
    "medicai",
    "keras",
    "nibabel",
    "SimpleITK",
    "pydicom",
    "batchgeneratorsv2",
    "kornia",
    "timm",
    "segmentation_models_pytorch",
    "torch_scatter",
    "tfrecord",
)

Rows = list[dict[str, Any]]


def scripts() -> list[str]:
    names = [p.stem for p in sorted(HERE.glob("*.py")) if not p.stem.startswith("_")]
    return [name for name in names if name not in NOT_RATIOS]


def machine() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if "model name" in x), model)
    return f"{model}, {os.cpu_count()} cores"


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in PEERS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def run(name: str) -> dict[str, Any] | None:
    """Run a script, show what it prints, and return what it recorded."""
    print(f"== {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows.jsonl"
        command = [sys.executable, str(HERE / f"{name}.py")]
        variables = {**os.environ, VARIABLE: str(target)}
        code = subprocess.run(command, check=False, env=variables).returncode
        if code:
            print(f"{name}.py ended with status {code}; its former figures stay", file=sys.stderr)
            return None
        lines = target.read_text(encoding="utf-8").splitlines() if target.exists() else []
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    return {
        "date": today,
        "machine": machine(),
        "versions": versions(),
        "rows": [json.loads(x) for x in lines],
    }


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    head = list(head)
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows), ""]


def ratio_rows(rows: Rows) -> list[tuple[str, str, str, str]]:
    return [(r["what"], r["peer"], r["measure"], f"{r['ratio']:.2f}") for r in rows]


def page(results: Mapping[str, dict[str, Any]]) -> str:
    every = [row for part in results.values() for row in part["rows"]]
    ratios = [row for row in every if "ratio" in row]
    numerics = [row for row in every if "right" in row]
    lost = sorted((r for r in ratios if r["ratio"] < LOSING), key=lambda r: r["ratio"])
    head = ("task", "beside", "measure", "ratio")
    lines = [
        "# medkit beside other libraries",
        "",
        "Written by `make bench` (`benchmarks/compare.py`). A ratio is the other library's figure",
        "over medkit's, both taken in one run on one machine: above 1 medkit is faster or smaller.",
        "Times are the shortest of some rounds in turn, or medians where a script says so. The",
        "machines are shared and noisy: a ratio within a tenth of 1 is a tie.",
        "",
        "## Where medkit loses",
        "",
        f"{len(lost)} of {len(ratios)} ratios are below {LOSING}.",
        "",
        *table(
            (*head, "script"),
            [(*r, f"`{x['script']}`") for r, x in zip(ratio_rows(lost), lost, strict=True)],
        ),
        "## What is right",
        "",
        "The same call on the same input; the right value is a closed form or a float64 formula.",
        "",
        *table(
            ("task", "right", "medkit", "beside", "gives"),
            [(r["what"], r["right"], r["medkit"], r["peer"], r["theirs"]) for r in numerics],
        ),
        FEATURES.read_text(encoding="utf-8"),
        "## Every ratio",
        "",
    ]
    for name, part in results.items():
        mine = [row for row in part["rows"] if "ratio" in row]
        if mine:
            lines += [f"### `benchmarks/{name}.py`", "", f"{part['date']}; {part['machine']}.", ""]
            lines += table(head, ratio_rows(mine))
    newest = max(results.values(), key=lambda part: part["date"])
    lines += ["## Versions", "", f"On {newest['date']}: {newest['versions']}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=scripts(), default=scripts())
    parser.add_argument("--write-only", action="store_true", help="run nothing")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in () if options.write_only else options.only:
        found = run(name)
        if found is not None:
            results[name] = found
            kept = {key: results[key] for key in sorted(results)}
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page({key: results[key] for key in sorted(results)}), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
