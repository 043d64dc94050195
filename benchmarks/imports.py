"""How long it takes to import medkit and the libraries around it, in fresh processes.

    python benchmarks/imports.py [--rounds 5]

Each round starts a Python for each line, in turn; a row gives the least processor time, less that
of a Python that imports nothing. torch stands beside them because all of them import it.
"""

import argparse
import importlib.util
import resource
import subprocess
import sys

from _record import record

LINES = {
    "medkit": "import medkit",
    "medkit.losses, nn and data": "import medkit.losses, medkit.nn, medkit.data",
    "torch": "import torch",
    "MONAI": "import monai",
    "TorchIO": "import torchio",
    "kornia": "import kornia",
    "batchgeneratorsv2": "import batchgeneratorsv2.transforms.base.basic_transform",
}


def seconds(line: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", line], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    lines = {
        name: line
        for name, line in LINES.items()
        if importlib.util.find_spec(line.split()[1].split(",")[0].split(".")[0])
    }
    times: dict[str, list[float]] = {"": [], **{name: [] for name in lines}}
    for _ in range(options.rounds):
        for name, spent in times.items():
            spent.append(seconds(lines.get(name, "pass")))
    bare = min(times.pop(""))
    net = {name: min(spent) - bare for name, spent in times.items()}
    for name, value in net.items():
        print(f"{name:28}{value:8.3f} s")
    parts = net.pop("medkit.losses, nn and data")
    del net["medkit"], net["torch"]
    record(
        "import of losses, networks and data (all import torch)", "time", {"medkit": parts, **net}
    )


if __name__ == "__main__":
    main()
