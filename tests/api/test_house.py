"""The source keeps to the sizes and names that CONTRIBUTING.md asks for."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import medkit

SOURCE = Path(medkit.__file__).parent
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base"}


@pytest.mark.parametrize("file", FILES)
def test_file_holds_one_idea(file: str) -> None:
    assert len((SOURCE / file).read_text().splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("file", FILES)
def test_functions_fit_on_a_screen(file: str) -> None:
    too_long = [
        f"{f.name}: {n}" for f in _functions(file) if (n := _code_lines(f)) > MAX_FUNCTION_LINES
    ]

    assert not too_long


@pytest.mark.parametrize("file", FILES)
def test_implementation_files_are_private_and_named_for_their_idea(file: str) -> None:
    parts = Path(file).with_suffix("").parts

    assert parts[-1] == "__init__" or any(part.startswith("_") for part in parts)
    assert not EMPTY_NAMES & {part.strip("_") for part in parts}


@pytest.mark.parametrize("file", [file for file in FILES if file.count("/") == 1])
def test_imports_within_a_subpackage_are_relative(file: str) -> None:
    subpackage = Path(file).parts[0]
    absolute = re.compile(rf"^\s*(from|import) medkit\.{subpackage}\b", re.MULTILINE)

    assert not absolute.search(_without_docstrings((SOURCE / file).read_text()))


def _without_docstrings(source: str) -> str:
    return re.sub(r'""".*?"""', "", source, flags=re.DOTALL)


def _functions(file: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse((SOURCE / file).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function from its name to its end, without its docstring."""
    assert function.end_lineno is not None
    total = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None and first.end_lineno is not None:
        total -= first.end_lineno - first.lineno + 1
    return total
