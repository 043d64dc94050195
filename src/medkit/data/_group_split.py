"""Parts of a data set that share no patient."""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check
from medkit._core.keyed_random import sample_rng

Marks = Sequence[Hashable] | Shaped[Tensor, " sample"] | Shaped[np.ndarray, " sample"]

_SPLIT = 4  # stream of the order in which groups are dealt out


def group_split(
    groups: Marks,
    *,
    ratios: Sequence[float],
    labels: Marks | None = None,
    seed: int = 0,
) -> list[list[int]]:
    """Return the samples of each part, no group in two of them.

    Use it to split by patient: images of one patient in training and test make a test worth
    nothing. With ``labels`` every part has about the same share of each class. Groups are dealt
    out one by one, those that weigh most first, each to the part that stays closest to its share
    of every class; equal ones go in random order.

    Args:
        groups: Group of each sample, such as a patient's number.
        ratios: Size of each part relative to the others: ``(0.8, 0.1, 0.1)``, or ``[1] * 5`` for
            five folds.
        labels: Class of each sample. None balances the number of samples alone.
        seed: Start of the random order.

    Returns:
        Rising indices of the samples of each part; all together every sample once.

    Raises:
        ValueError: If there are fewer groups than parts, a ratio is not positive, or the number of
            labels is not that of the groups.

    Example:
        >>> patients = ["a", "a", "b", "c", "c", "d"]
        >>> train, test = group_split(patients, ratios=(0.7, 0.3), seed=1)
        >>> len(train), len(test), {patients[i] for i in train} & {patients[i] for i in test}
        (4, 2, set())

    References:
        K. Sechidis, G. Tsoumakas, I. Vlahavas, "On the Stratification of Multi-label Data", ECML
        PKDD, 2011: dealing out the rarest first, here by group.
    """
    groups, labels = _plain(groups), None if labels is None else _plain(labels)
    shares = np.array([check.positive("ratios", ratio) for ratio in ratios])
    names = list(dict.fromkeys(groups))
    if len(names) < len(shares):
        raise check.fail("groups", f"at least {len(shares)} different ones", len(names))
    if labels is not None and len(labels) != len(groups):
        raise check.fail("labels", f"{len(groups)}, one for each sample", len(labels))
    counts = _counts(groups, names, labels)
    target = np.outer(shares / shares.sum(), counts.sum(0))
    part_of = _dealt_out(counts, target, seed)
    number = {name: part_of[i] for i, name in enumerate(names)}
    return [[i for i, g in enumerate(groups) if number[g] == p] for p in range(len(shares))]


def _plain(values: Marks) -> Sequence[Hashable]:
    """Return numbers for a tensor, whose own elements are equal to none."""
    return np.asarray(values).tolist() if isinstance(values, Tensor | np.ndarray) else values


def _counts(
    groups: Sequence[Hashable], names: Sequence[Hashable], labels: Sequence[Hashable] | None
) -> np.ndarray:
    """Return how many samples of each class each group has, ``(group, class)``."""
    row = {name: i for i, name in enumerate(names)}
    given = [None] * len(groups) if labels is None else labels
    column = {label: i for i, label in enumerate(dict.fromkeys(given))}
    counts = np.zeros((len(row), len(column)))
    for group, label in zip(groups, given, strict=True):
        counts[row[group], column[label]] += 1
    return counts


def _dealt_out(counts: np.ndarray, target: np.ndarray, seed: int) -> list[int]:
    """Return the part of each group: none is left empty, each class comes near its target."""
    weight = 1 / counts.sum(0)  # a rare class counts as much as a common one
    order = sample_rng(seed, 0, 0, stream=_SPLIT).permutation(len(counts))
    heaviest = np.argsort(-(counts * weight).sum(1)[order], kind="stable")
    filled, members = np.zeros_like(target), np.zeros(len(target), dtype=int)
    part_of = [0] * len(counts)
    for done, group in enumerate(order[heaviest].tolist()):
        empty = np.flatnonzero(members == 0)
        only = empty if len(empty) == len(counts) - done else np.arange(len(target))
        lack = ((target - filled) * weight)[only]
        gain = (lack**2 - (lack - counts[group] * weight) ** 2).sum(1)
        part = int(only[np.argmax(gain)])
        filled[part] += counts[group]
        members[part] += 1
        part_of[group] = part
    return part_of
