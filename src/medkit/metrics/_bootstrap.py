"""Intervals of means and other statistics, by drawing cases or patients again."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from medkit._core import check

from ._scores import Empty, Scores


class Interval(NamedTuple):
    """A mean, or another statistic, and where it would lie with other cases.

    Attributes:
        mean: Mean, or statistic, of the cases at hand.
        low: Lower limit.
        high: Upper limit.
        level: Share of such intervals that hold the mean of the population.
        units: Number of cases or patients that were drawn from.
        skipped: Number of draws without a value, left out.
    """

    mean: float
    low: float
    high: float
    level: float
    units: int
    skipped: int


def bootstrap_interval(
    scores: Scores,
    *,
    patients: Sequence[Hashable] | Shaped[Tensor, " case"] | None = None,
    level: float = 0.95,
    num_draws: int = 1000,
    empty: Empty = "skip",
    generator: torch.Generator | None = None,
) -> Interval:
    r"""Return the mean of scores with its percentile bootstrap interval.

    .. math:: [\,q_{(1 - \ell)/2}(\bar s^*),\ q_{(1 + \ell)/2}(\bar s^*)\,]

    where :math:`\bar s^*` is the mean, as that of ``Scores.mean``, of as many cases drawn with
    replacement. Use it with every mean that is reported. Images of one patient are alike: name
    ``patients``, and patients are drawn with all of their images, which makes the interval honest.

    Args:
        scores: Values per case and class.
        patients: Patient of each case. None takes every case for a patient of its own.
        level: Level of the interval, in (0, 1).
        num_draws: Number of draws.
        empty: What a case counts where truth and prediction are both empty.
        generator: Source of the draws. None takes PyTorch's.

    Returns:
        The mean and its limits.

    Raises:
        ValueError: If a value is infinite, ``patients`` are not one for each case, or an option is
            out of range.

    Example:
        >>> import torch
        >>> from medkit.metrics import dice_score
        >>> truth = torch.ones(8, 4, dtype=torch.int64)
        >>> found = (torch.arange(32).reshape(8, 4) % 7 > 0).long()
        >>> scores = dice_score(found, truth, num_classes=2, include_background=False)
        >>> interval = bootstrap_interval(scores, generator=torch.Generator().manual_seed(0))
        >>> interval.low < interval.mean < interval.high
        True

    References:
        B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall 1993,
        equation 13.5. C. A. Field, A. H. Welsh, "Bootstrapping clustered data", Journal of the
        Royal Statistical Society B 69, 2007, section 2 (patients).
    """
    _check_options(level, num_draws)
    mean = scores.mean(empty=empty)
    values = scores.values.cpu()
    if empty == "perfect":
        values = torch.where(scores.is_status("both_empty").cpu(), scores.perfect, values)
    if values.isinf().any():
        raise check.fail("scores", "finite", "an infinite value")
    groups = _groups(patients, len(values))
    units = int(groups.max()) + 1 if len(groups) else 0
    if not units:
        raise check.fail("scores", "of at least one case", "none")
    means = _drawn_means(values, groups, num_draws, generator)
    return _interval(mean, means, level, units)


def bootstrap_statistic(
    statistic: Callable[[Int64[Tensor, " sample"]], float],
    patients: Sequence[Hashable] | Shaped[Tensor, " sample"],
    *,
    level: float = 0.95,
    num_draws: int = 1000,
    generator: torch.Generator | None = None,
) -> Interval:
    r"""Return a statistic of samples with its percentile bootstrap interval over patients.

    .. math:: [\,q_{(1 - \ell)/2}(T^*),\ q_{(1 + \ell)/2}(T^*)\,]

    where :math:`T^*` is the statistic of as many patients drawn with replacement, each with all of
    its samples. Use it for what is not a mean over samples: F1, a correlation, the area under a
    curve. :func:`bootstrap_interval` is faster for means of scores.

    Args:
        statistic: Takes the numbers of samples, some more than once, and returns a number; NaN
            where it has no value.
        patients: Patient of each sample.
        level: Level of the interval, in (0, 1).
        num_draws: Number of draws, and of calls.
        generator: Source of the draws. None takes PyTorch's.

    Returns:
        The statistic of all samples in order, and its limits.

    Raises:
        ValueError: If there is no sample, or an option is out of range.

    Example:
        >>> import torch
        >>> from medkit.metrics import confusion_matrix, confusion_scores
        >>> truth = torch.arange(60) % 3
        >>> found = torch.where(torch.arange(60) % 5 > 0, truth, 0)
        >>> def mcc(samples: torch.Tensor) -> float:
        ...     counts = confusion_matrix(found[samples], truth[samples], num_classes=3)
        ...     return confusion_scores(counts).mcc
        >>> patients = [sample // 6 for sample in range(60)]
        >>> seeded = torch.Generator().manual_seed(0)
        >>> interval = bootstrap_statistic(mcc, patients, num_draws=100, generator=seeded)
        >>> interval.low < interval.mean < interval.high
        True

    References:
        C. A. Field, A. H. Welsh, "Bootstrapping clustered data", Journal of the Royal Statistical
        Society B 69, 2007, section 2.
    """
    _check_options(level, num_draws)
    if not len(patients):
        raise check.fail("patients", "of at least one sample", "none")
    groups = _groups(patients, len(patients))
    units = int(groups.max()) + 1
    members = [(groups == unit).nonzero().flatten() for unit in range(units)]
    drawn = torch.randint(0, units, (num_draws, units), generator=generator)
    values = [statistic(torch.cat([members[int(unit)] for unit in draw])) for draw in drawn]
    whole = statistic(torch.arange(len(groups)))
    return _interval(whole, torch.tensor(values, dtype=torch.float64), level, units)


def _check_options(level: float, num_draws: int) -> None:
    check.integer("num_draws", num_draws, minimum=1)
    if not 0 < check.real("level", level) < 1:
        raise check.fail("level", "in (0, 1)", level)


def _interval(value: float, draws: Float64[Tensor, " draw"], level: float, units: int) -> Interval:
    """Return the interval between the percentiles of the draws that have a value."""
    kept = draws[~draws.isnan()]
    limits = [torch.nan, torch.nan]
    if len(kept):
        at = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        limits = [float(limit) for limit in kept.quantile(at)]
    return Interval(value, limits[0], limits[1], level, units, len(draws) - len(kept))


def _groups(patients: Sequence[Hashable] | Tensor | None, cases: int) -> Tensor:
    """Return the number of the patient of each case, from 0."""
    if patients is None:
        return torch.arange(cases)
    if isinstance(patients, Tensor):  # two equal elements of a tensor are two keys
        patients = cast("list[Hashable]", patients.tolist())  # pyright: ignore[reportUnknownMemberType]  untyped in torch
    if len(patients) != cases:
        raise check.fail("patients", f"one for each of {cases} cases", f"{len(patients)} of them")
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    return torch.tensor([numbers[patient] for patient in patients], dtype=torch.int64)


def _drawn_means(
    values: Tensor, groups: Tensor, num_draws: int, generator: torch.Generator | None
) -> Float64[Tensor, " draw"]:
    """Return the mean of each draw: over cases in each class, then over classes."""
    units = int(groups.max()) + 1
    drawn = torch.randint(0, units, (num_draws, units), generator=generator)
    times = torch.zeros(num_draws, units, dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    weight = times[:, groups]
    known = ~values.isnan()
    sums, counts = weight @ values.nan_to_num(0.0), weight @ known.double()
    return (sums / counts).nanmean(1)
