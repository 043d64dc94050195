"""Importing medkit is quick, quiet and loads nothing that was not asked for."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from api import surface

ROOT = Path(__file__).parents[2]
SUBPACKAGES = ", ".join(f"medkit.{name}" for name in surface.SUBPACKAGES)
MODULES = 60  # a few milliseconds; torch brings some 1100


def test_importing_medkit_loads_no_torch() -> None:
    loaded = _modules_after("import medkit")

    assert "medkit" in loaded
    assert {"torch", "numpy", "scipy", "h5py"}.isdisjoint(loaded)


def test_importing_medkit_loads_a_handful_of_modules() -> None:
    assert len(_modules_after("import medkit") - _modules_after("pass")) < MODULES


def test_importing_subpackages_loads_no_optional_package() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = configuration["tool"]["importlinter"]["contracts"]
    forbidden = next(set(c["forbidden_modules"]) for c in contracts if c["type"] == "forbidden")

    loaded = _modules_after(f"import {SUBPACKAGES}")

    assert "torch" in loaded
    assert forbidden.isdisjoint(loaded)
    assert "torch.distributed.checkpoint" not in loaded  # a second on top of torch


def test_importing_subpackages_warns_of_nothing() -> None:
    ours = f"import warnings; warnings.simplefilter('error'); import {SUBPACKAGES}"

    _run(f"import torch, h5py, scipy, jaxtyping, tqdm\n{ours}")


def test_subpackages_load_when_they_are_first_used() -> None:
    assert _run("import medkit; print(medkit.ops.__name__)").strip() == "medkit.ops"


def test_an_unknown_name_is_an_attribute_error() -> None:
    import medkit

    with pytest.raises(AttributeError, match="no attribute 'loses'"):
        _ = medkit.loses


def test_dir_lists_the_public_names() -> None:
    import medkit

    assert dir(medkit) == sorted(medkit.__all__)


def _modules_after(statement: str) -> set[str]:
    return set(
        json.loads(_run(f"{statement}\nimport sys, json; print(json.dumps(list(sys.modules)))"))
    )


def _run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    ).stdout
