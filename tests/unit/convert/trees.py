"""What is in an HDF5 file, apart from the numbers."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import h5py

GOLDEN = Path(__file__).parents[2] / "golden" / "keras_trees"


class Part(NamedTuple):
    """A group or an array, as a line of a golden file describes it."""

    shape: str
    dtype: str
    layout: str
    attributes: str


def tree(path: Path) -> dict[str, Part]:
    """Return every part of a file by its path."""
    parts: dict[str, Part] = {}

    def add(name: str, part: h5py.Group | h5py.Dataset) -> None:
        attributes = str(dict(part.attrs)) if len(part.attrs) else ""
        if isinstance(part, h5py.Dataset):
            layout = f"contiguous={part.chunks is None}"
            parts[name] = Part(str(part.shape), str(part.dtype), layout, attributes)
        else:
            parts[f"{name}/"] = Part("", "", "", attributes)

    with h5py.File(path) as file:
        file.visititems(add)
    return parts


def golden_tree(name: str) -> dict[str, Part]:
    """Return the parts that a golden file lists."""
    lines = (GOLDEN / f"h5tree_{name}.tsv").read_text().splitlines()
    return {path: Part(*rest) for path, *rest in (line.split("\t") for line in lines)}


def numbered_from_the_first(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Return the parts with the numbers in the names of layers counted from the first of a kind.

    Keras counts them on through a process, so they depend on what was made before.
    """
    counted = dict(_numbers(parts))
    first: dict[str, int] = {}
    for match in counted.values():
        number = int(match["number"] or 0)
        first[match["name"]] = min(number, first.get(match["name"], number))
    return {
        path: part._replace(
            attributes=f"{match['name']} {int(match['number'] or 0) - first[match['name']]}"
        )
        if (match := counted.get(path))
        else part
        for path, part in parts.items()
    }


def _numbers(parts: Mapping[str, Part]) -> Iterator[tuple[str, re.Match[str]]]:
    for path, part in parts.items():
        pattern = r"\{'name': '(?P<name>[a-z_]+?(\dd)?)_?(?P<number>\d+)?'\}"
        match = re.fullmatch(pattern, part.attributes)
        if match:
            yield path, match
