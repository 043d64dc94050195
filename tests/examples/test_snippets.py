"""Every Python block of the README and the guides runs, top to bottom, in one script per page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md")))
    if BLOCK.search(path.read_text())
]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
@pytest.mark.parametrize("page", PAGES)
def test_snippets_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "\n".join(BLOCK.findall((ROOT / page).read_text()))
    monkeypatch.chdir(tmp_path)

    exec(compile(source, page, "exec"), {"__name__": "__main__"})


def test_readme_example_fits_in_fifteen_lines() -> None:
    first = BLOCK.findall((ROOT / "README.md").read_text())[0]
    code = [line for line in first.splitlines() if line.strip() and not line.startswith("#")]

    assert len(code) <= 15
