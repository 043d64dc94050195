"""The page of networks in numbers is what its script prints."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def table():
    path = ROOT / "benchmarks" / "network_table.py"
    spec = importlib.util.spec_from_file_location("network_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_page_names_every_network_with_its_parameters(table) -> None:
    counted = table.PAGE.read_text().partition("\n## ")[0]
    rows = [line.split(" | ") for line in counted.splitlines() if "| `" in line]

    found = [(name.strip("|` "), parameters) for name, _, parameters, *_ in rows]

    counts = [sum(p.numel() for p in e.make(device="meta").parameters()) for e in table.ENTRIES]
    names = [entry.name for entry in table.ENTRIES]
    assert found == [(name, f"{count:,}") for name, count in zip(names, counts, strict=True)]


@pytest.mark.parametrize("name", ['SegFormer3D(variant="b0")', "UNet2D()", "CoordinateMLP()"])
def test_the_page_has_the_counts_of_today(table, name: str) -> None:
    entry = next(entry for entry in table.ENTRIES if entry.name == name)

    assert table.row(entry) in table.PAGE.read_text()


def test_products_added_in_place_are_counted(table) -> None:
    class Adds(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(2, 3, 5).baddbmm_(x, x.new_ones(2, 4, 5))

    x = torch.empty(2, 3, 4, device="meta")

    assert table.multiply_adds(Adds(), x) == 2 * 3 * 4 * 5
