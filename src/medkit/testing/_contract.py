"""Laws, verdicts and reports: what every contract check is made of."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

from medkit._core import check

from ._options import Options, spell

Status = Literal["passed", "violated", "not applicable", "excused"]
Subject = TypeVar("Subject")


class NotApplicable(Exception):  # noqa: N818  not an error: the law has nothing to say here
    """Raised inside a law that cannot be tried on this part; the message says why."""


class Violation(AssertionError):  # noqa: N818  a finding, no error of ours
    """Raised by a law that does not hold; what the part itself raises is never one."""


class Verdict(NamedTuple):
    """What one law says about one part.

    Attributes:
        law: Name of the law.
        status: Whether the part obeys it, or why it was not held to it.
        message: What is wrong, with numbers, or the reason; empty when the law holds.
    """

    law: str
    status: Status
    message: str


@dataclass(frozen=True)
class Report:
    """Every law that a part was held to, with the verdict on each.

    Args:
        part: Name of the part.
        verdicts: One verdict for each law, in the order of the laws.

    Example:
        >>> report = Report("sum", (Verdict("reductions_agree", "violated", "3.0, not 1.0"),))
        >>> report.violations
        {'reductions_agree': '3.0, not 1.0'}
        >>> report.passed
        ()
    """

    part: str
    verdicts: tuple[Verdict, ...]

    @property
    def violations(self) -> dict[str, str]:
        """What is wrong, by law."""
        return {v.law: v.message for v in self.verdicts if v.status == "violated"}

    @property
    def not_applicable(self) -> dict[str, str]:
        """Why a law was not tried, by law."""
        return {v.law: v.message for v in self.verdicts if v.status == "not applicable"}

    @property
    def excused(self) -> dict[str, str]:
        """The reason given for a law that is known not to hold, by law."""
        return {v.law: v.message for v in self.verdicts if v.status == "excused"}

    @property
    def passed(self) -> tuple[str, ...]:
        """The laws that hold."""
        return tuple(v.law for v in self.verdicts if v.status == "passed")

    def raise_if_violated(self) -> None:
        """Raise ``ContractError`` with every violation, if there is one.

        Raises:
            ContractError: If a law is violated.
        """
        if self.violations:
            raise ContractError(self)

    def __str__(self) -> str:
        """Return the violations, then what was not tried; laws with one message share a line."""
        count = f"{len(self.violations)} of {len(self.verdicts)} laws violated"
        lines = [f"{self.part}: {count}, {len(self.passed)} passed"]
        for status in ("violated", "excused", "not applicable"):
            by_message: dict[str, list[str]] = {}
            for verdict in self.verdicts:
                if verdict.status == status:
                    by_message.setdefault(verdict.message, []).append(verdict.law)
            lines += [f"  {status}: {', '.join(laws)}: {m}" for m, laws in by_message.items()]
        return "\n".join(lines)


class ContractError(AssertionError):
    """Raised when a part violates a law; the message lists every violation.

    Args:
        report: The verdict of every law that was tried.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report

    def __reduce__(self) -> tuple[type["ContractError"], tuple[Report]]:
        return type(self), (self.report,)


@dataclass(frozen=True)
class Law(Generic[Subject]):
    """A sentence that must hold for every part of a kind, and the check that tries it."""

    name: str
    sentence: str
    check: Callable[[Subject], None]


def examine(
    part: str,
    laws: Sequence[Law[Subject]],
    subject: Subject,
    *,
    chosen: Collection[str] | None,
    excuses: Mapping[str, str] | None,
) -> Report:
    """Hold a part to the chosen laws and report the verdict of each."""
    names = [law.name for law in laws]
    for argument, given in (("laws", chosen or ()), ("excuses", excuses or ())):
        for name in given:
            if name not in names:
                raise check.fail(argument, "names of laws", repr(name))
    wanted = [law for law in laws if chosen is None or law.name in chosen]
    return Report(
        part, tuple(_judge(law, subject, (excuses or {}).get(law.name)) for law in wanted)
    )


def _judge(law: Law[Subject], subject: Subject, excuse: str | None) -> Verdict:
    try:
        law.check(subject)
    except NotApplicable as reason:
        return Verdict(law.name, "not applicable", str(reason))
    except Exception as error:  # noqa: BLE001  a broken part may raise anything; that is the finding
        message = describe(error)
        if excuse is None:
            return Verdict(law.name, "violated", message)
        return Verdict(law.name, "excused", f"{excuse} ({message})")
    if excuse is not None:
        return Verdict(law.name, "violated", f"the law holds; remove the excuse {excuse!r}")
    return Verdict(law.name, "passed", "")


def try_in_each(attempt: Callable[[Options], None], settings: Sequence[Options]) -> None:
    """Try a law in each setting; raise the first violation, with the number of the others."""
    found: list[str] = []
    reasons: list[str] = []
    for options in settings:
        try:
            attempt(options)
        except NotApplicable as reason:
            reasons.append(str(reason))
        except Exception as error:  # noqa: BLE001  a broken part may raise anything
            setting = f"({spell(options)}) " if options else ""
            found.append(f"{setting}{describe(error)}")
    if found:
        more = f"; and in {len(found) - 1} more of {len(settings)} settings" if found[1:] else ""
        raise Violation(found[0] + more)
    if len(reasons) == len(settings):
        raise NotApplicable(reasons[0] if reasons else "refuses every setting")


def describe(error: Exception) -> str:
    """Return what went wrong in one line: the finding itself, or what the part raised."""
    text = " ".join(str(error).split())
    text = text if len(text) <= MESSAGE_LENGTH else text[:MESSAGE_LENGTH] + " ..."
    return text if isinstance(error, Violation) else f"raises {type(error).__name__}: {text}"


MESSAGE_LENGTH = 500
