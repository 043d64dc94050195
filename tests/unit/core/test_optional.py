"""A missing optional package names its extra; a broken one names its error."""

from pathlib import Path

import pytest

from medkit._core import optional


def test_an_installed_package_is_imported() -> None:
    assert optional.require("json.decoder", extra="io").JSONDecoder


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(
        ImportError, match=r"no_such_package is needed .* pip install 'medkit\[plot\]'"
    ):
        optional.require("no_such_package.part", extra="plot")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "raise RuntimeError('operator nms does not exist')",
            "RuntimeError: operator nms does not exist",
        ),
        (
            "import another_missing_package",
            "ModuleNotFoundError: No module named 'another_missing_package'",
        ),
    ],
)
def test_a_broken_package_is_reported(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"broken_package_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ImportError, match=f"{name} is installed but fails to import .{reason}"):
        optional.require(name, extra="timm")
    assert not optional.is_available(name)


def test_availability_is_told_without_an_error() -> None:
    assert optional.is_available("json")
    assert not optional.is_available("no_such_package")
