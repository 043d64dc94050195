"""The surface example in as many processes as started it, which note what they trained on.

Run with ``<folder>``; process r writes epoch, number and checksum of its crops to seen_<r>.json.
"""

import dataclasses
import importlib.util
import json
import os
import sys
import zlib
from pathlib import Path
from types import ModuleType

import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "train_surface_detection.py"


def load_example() -> ModuleType:
    """Return the example, with a preset of seconds."""
    spec = importlib.util.spec_from_file_location("train_surface_detection", SCRIPT)
    example = importlib.util.module_from_spec(spec)
    sys.modules["train_surface_detection"] = example  # its dataclass looks itself up there
    spec.loader.exec_module(example)
    tiny = {"crop": 40, "epochs": 2, "validate_every": 1, "iterations": 1, "synthetic": (8, 48)}
    example.PRESETS["tiny"] = dataclasses.replace(example.PRESETS["quick"], **tiny)
    return example


def checksum(crop: dict[str, torch.Tensor]) -> int:
    return zlib.crc32(torch.cat([crop["image"], crop["label"]]).numpy().tobytes())


def main() -> None:
    torch.set_num_threads(1)
    example = load_example()
    seen: list[tuple[int, int, int]] = []

    class Noted(example.SeededDataset):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            crop = super().__getitem__(index)
            seen.append((index.epoch, int(index), checksum(crop)))
            return crop

    example.SeededDataset = Noted
    folder = Path(sys.argv[1])
    example.main(["--preset", "tiny", "--device", "cpu", "--out", str(folder)])
    (folder / f"seen_{os.environ['RANK']}.json").write_text(json.dumps(seen))
    os._exit(0)  # gloo's threads may abort an ordinary exit


if __name__ == "__main__":
    main()
