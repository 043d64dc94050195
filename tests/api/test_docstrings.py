"""Every public callable documents its arguments as they are, and its example runs as printed."""

import doctest
import inspect
import re
from collections.abc import Callable

import pytest

import _torchvision_shim
from api import surface

CALLABLES = dict(surface.public_callables())
TOP_LEVEL = {name: thing for name, thing in surface.public_objects() if name in CALLABLES}
CITED = {
    name: thing
    for name, thing in TOP_LEVEL.items()
    if name.split(".")[0] in ("losses", "metrics", "nn")
}
FIRST_LINE = 90
NEEDS = {"nn.TimmUNet": "timm", "nn.timm_encoder": "timm"}
"""Optional packages that examples run."""

SECTION = re.compile(
    r"^(Args|Attributes|Returns|Yields|Raises|Example|Examples|References|Note):$", re.MULTILINE
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


@pytest.mark.parametrize("name", CALLABLES)
def test_docstring_opens_with_one_short_line(name: str) -> None:
    first = _doc(CALLABLES[name]).split("\n")[0]

    assert first.endswith((".", ":", "?")), f"{name} begins {first!r}"
    assert len(first) <= FIRST_LINE
    assert not first.lower().startswith(("this function", "this class", "this method"))


@pytest.mark.parametrize("name", CALLABLES)
def test_docstring_names_the_arguments_as_they_are(name: str) -> None:
    thing = CALLABLES[name]
    sections = _sections(_doc(thing))
    documented = re.findall(
        r"^(\w+):", sections.get("Args", "") or sections.get("Attributes", ""), re.MULTILINE
    )

    assert documented == _argument_names(thing), f"{name} documents {documented}"


@pytest.mark.parametrize("name", TOP_LEVEL)
def test_docstring_shows_an_example_that_runs(name: str) -> None:
    thing = TOP_LEVEL[name]
    if inspect.isclass(thing) and issubclass(thing, BaseException | tuple):
        pytest.skip("exceptions and plain records need no example")
    if name in NEEDS:
        _torchvision_shim.install()
        pytest.importorskip(NEEDS[name])
    text = _doc(thing)
    subpackage = name.split(".", maxsplit=1)[0]
    scope = {**vars(__import__(f"medkit.{subpackage}", fromlist=["x"])), "__name__": "__main__"}
    example = doctest.DocTestParser().get_doctest(text, scope, name, None, 0)

    assert example.examples, f"{name} shows no example"
    log: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(example, out=log.append)
    assert result.failed == 0, "".join(log)


@pytest.mark.parametrize("name", CITED)
def test_docstring_names_its_source(name: str) -> None:
    thing = CITED[name]
    if inspect.isclass(thing) and issubclass(thing, tuple):
        pytest.skip("plain records have no source")

    assert _sections(_doc(thing)).get("References"), f"{name} gives no source"


def _doc(thing: Callable[..., object]) -> str:
    text = (
        inspect.getdoc(thing)
        if not inspect.isclass(thing)
        else inspect.cleandoc(thing.__doc__ or "")
    )
    assert text, f"{thing} has no docstring"
    return text


def _sections(doc: str) -> dict[str, str]:
    parts = SECTION.split(doc)
    bodies = (inspect.cleandoc("\n" + body) for body in parts[2::2])
    return dict(zip(parts[1::2], bodies, strict=True))


def _argument_names(thing: Callable[..., object]) -> list[str]:
    if (
        inspect.isclass(thing)
        and issubclass(thing, BaseException)
        and "__init__" not in vars(thing)
    ):
        return []
    if getattr(thing, "_is_protocol", False):
        return []
    try:
        parameters = inspect.signature(thing).parameters
    except ValueError:
        return []
    return [name for name in parameters if name not in ("self", "cls")]
