"""What the folder of a checkpoint says about itself."""

import json
import platform
import re
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch

import medkit
from medkit._core.processes import place_among

from ._checked import Json
from ._commit import file_crc32

NAME = re.compile(r"step_(\d{9,})(?:-(\d+))?")
WEIGHTS, STATE, SHARDS, META = "weights.pt", "state.pt", "state", "meta.json"


@dataclass(frozen=True, kw_only=True)
class CheckpointReport:
    """What ``CheckpointManager.verify`` found in one checkpoint.

    Attributes:
        path: The folder.
        step: Step it was saved at, or -1 if that cannot be read.
        metric: The value it was ranked by, or None.
        extra: What the caller stored beside.
        problems: What is wrong with it; empty when it is whole.

    Example:
        >>> import tempfile
        >>> from medkit.train import CheckpointManager
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoints = CheckpointManager(folder)
        ...     path = checkpoints.save(3)
        ...     _ = (path / "state.pt").write_bytes(b"")
        ...     print(checkpoints.verify(path).problems)
        ('state.pt is damaged',)
    """

    path: Path
    step: int = -1
    metric: float | None = None
    extra: dict[str, Json] = field(default_factory=dict[str, Json])
    problems: tuple[str, ...] = ()


def inspect_folder(path: Path) -> CheckpointReport:
    """Read every byte of a checkpoint and compare sizes and checksums."""
    meta = read_meta(path)
    try:
        files = cast("dict[str, dict[str, int]]", meta["files"])
        step, metric = cast("int", meta["step"]), cast("float | None", meta["metric"])
        extra = cast("dict[str, Json]", meta["extra"])
        expected = {name: (entry["size"], entry["crc32"]) for name, entry in files.items()}
    except KeyError:
        return CheckpointReport(path=path, problems=(f"{META} is missing or damaged",))
    problems: list[str] = []
    for name, size_and_crc in expected.items():
        if not (path / name).is_file():
            problems.append(f"{name} is missing")
        elif file_crc32(path / name) != size_and_crc:
            problems.append(f"{name} is damaged")
    return CheckpointReport(
        path=path, step=step, metric=metric, extra=extra, problems=tuple(problems)
    )


def order(path: Path) -> tuple[int, int]:
    """Return step and number of a checkpoint's name."""
    match = NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2] or 0)) if match else (-1, 0)


def encode_meta(meta: Mapping[str, Json]) -> bytes:
    """Return the text of a checkpoint's description, with a checksum."""
    signed = {**meta, "crc32": _crc32(meta)}
    return json.dumps(signed, indent=1, allow_nan=False).encode()


def read_meta(path: Path) -> dict[str, Json]:
    """Return a checkpoint's description; a damaged one is empty."""
    try:
        meta = cast("dict[str, Json]", json.loads((path / META).read_text()))
        crc = meta.pop("crc32")
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return meta if crc == _crc32(meta) else {}


def _crc32(meta: Mapping[str, Json]) -> int:
    return zlib.crc32(json.dumps(dict(meta), sort_keys=True).encode())


def machine() -> dict[str, Json]:
    return {
        "medkit": medkit.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": place_among(None, None)[1],
    }


def warn_of_other_machine(meta: Mapping[str, Json]) -> None:
    then, now = cast("dict[str, Json]", meta.get("machine", {})), machine()
    changed = [f"{k} {then[k]} then, {now.get(k)} now" for k in then if then[k] != now.get(k)]
    if changed:
        text = f"the run goes on, but not bit for bit as it would have: {'; '.join(changed)}"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
