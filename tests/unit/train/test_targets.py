"""The table of promises names tests that exist."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROWS = [
    line.split("|")[1:-1]
    for line in (FOLDER / "README.md").read_text().splitlines()
    if re.match(r"\| \d+ ", line)
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0].strip() for row in ROWS])
def test_a_promise_is_kept_by_tests_that_exist(row: list[str]) -> None:
    _, promise, tests, by_hand = (cell.strip() for cell in row)
    named = re.findall(r"(test_\w+)::(test_\w+)", tests)

    assert promise
    assert named or by_hand
    for file, name in named:
        source = (FOLDER / f"{file}.py").read_text()
        assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{file}::{name}"


def test_promises_are_numbered_once() -> None:
    numbers = [int(row[0]) for row in ROWS]

    assert numbers == sorted(set(numbers))
