"""Rules of a sampler for every case, and the cases that have nothing to draw from."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar, runtime_checkable

from medkit._core import check

from ._any_case import AnyCase
from ._lazy_volume import LazyVolume
from ._volume import Volume


@runtime_checkable
class Counted(Protocol):
    """A rule that knows how much there is to draw from."""

    @property
    def total(self) -> float:
        """0 where there is nothing."""
        ...


Rule = TypeVar("Rule", bound=Counted)


def case_rules(
    cases: Iterable[AnyCase],
    make: Callable[[AnyCase], Rule],
    *,
    name: str,
    rule: str,
    without: str,
    found: str = "none",
) -> list[Rule]:
    """Return one rule per case; name all cases without anything, if ``without`` is "error"."""
    rules: list[Rule] = []
    empty: list[str] = []
    for case in cases:
        rules.append(make(case))
        if not rules[-1].total:
            empty.append(repr(case.id))
    if empty and without == "error":
        raise check.fail(name, rule, f"{found} in {', '.join(empty)}")
    return rules


def label_of(case: AnyCase) -> Volume | LazyVolume:
    """Return the label of a case, which must have one."""
    if case.label is None:
        raise check.fail("label", "in every case", f"none in {case.id!r}")
    return case.label
