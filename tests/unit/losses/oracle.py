"""Losses on voxels in plain Python numbers: loops over voxels, float64, no torch.

Arrays are channels first. ``truth`` holds one value per channel; ``weight`` one number per voxel.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray


def truth_of(target: Array, channels: int) -> Array:
    """Return one value per channel, all zero where a label is no class."""
    batch, spatial = target.shape[0], target.shape[1:]
    truth = np.zeros((batch, channels, *spatial))
    for place in np.ndindex(target.shape):
        label = int(target[place])
        if channels == 1:
            truth[(place[0], 0, *place[1:])] = float(label == 1)
        elif 0 <= label < channels:
            truth[(place[0], label, *place[1:])] = 1.0
    return truth


def probability(logits: list[float], activation: str | None) -> list[float]:
    if activation == "softmax":
        top = max(logits)
        odds = [math.exp(x - top) for x in logits]
        return [o / math.fsum(odds) for o in odds]
    if activation == "sigmoid":
        return [
            1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x)) for x in logits
        ]
    return logits


def activated(input: Array, activation: str | None) -> Array:
    result = np.empty_like(input)
    for b, *place in np.ndindex(input.shape[0], *input.shape[2:]):
        at = (b, slice(None), *place)
        result[at] = probability([float(x) for x in input[at]], activation)
    return result


def weights_of(class_weight: list[float] | None, channels: int, *, background: bool) -> list[float]:
    weights = [1.0] * channels if class_weight is None else list(class_weight)
    if not background:
        weights[0] = 0.0
    taking_part = channels if background else channels - 1
    return [w * taking_part / math.fsum(weights) for w in weights]


def dice(*scene: Array, smooth: float = 1e-5, **options: object) -> Array | float:
    def loss(shared: float, predicted: float, present: float, _: int) -> float:
        below = predicted + present + smooth
        return 1 - (2 * shared + smooth) / below if below else 0.0

    return _class_by_class(loss, *scene, **options)


def jaccard(*scene: Array, smooth: float = 1e-5, **options: object) -> Array | float:
    def loss(shared: float, predicted: float, present: float, _: int) -> float:
        below = (predicted - shared) + (present - shared) + shared + smooth
        return 1 - (shared + smooth) / below if below else 0.0

    return _class_by_class(loss, *scene, **options)


def tversky(
    *scene: Array,
    smooth: float = 1e-5,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float | list[float] = 1.0,
    **options: object,
) -> Array | float:
    def loss(shared: float, predicted: float, present: float, c: int) -> float:
        spurious, missed = predicted - shared, present - shared
        below = shared + alpha * spurious + beta * missed + smooth
        value = 1 - (shared + smooth) / below if below else 0.0
        return max(0.0, value) ** (gamma[c] if isinstance(gamma, list) else gamma)

    return _class_by_class(loss, *scene, **options)


def _class_by_class(
    loss: Callable[[float, float, float, int], float],
    input: Array,
    truth: Array,
    weight: Array,
    *,
    activation: str | None = "softmax",
    **options: object,
) -> Array | float:
    p = activated(input, activation)

    def value(members: list[int], c: int) -> float:
        return loss(*_sums(p, truth, weight, members, c)[:3], c)

    return over_classes(value, p, truth, weight, **options)


def over_classes(
    value_of: Callable[[list[int], int], float],
    p: Array,
    truth: Array,
    weight: Array,
    *,
    include_background: bool = True,
    class_weight: list[float] | None = None,
    absent: str = "ratio",
    batch: bool = False,
    reduction: str = "mean",
) -> Array | float:
    """Return the values of samples and classes, put together as the options say."""
    samples, channels = p.shape[:2]
    k = weights_of(class_weight, channels, background=include_background)
    rows = [list(range(samples))] if batch else [[b] for b in range(samples)]
    table = np.zeros((len(rows), channels))
    total, counted = 0.0, 0.0
    for row, members in enumerate(rows):
        for c in range(0 if include_background else 1, channels):
            _, predicted, present, voxels = _sums(p, truth, weight, members, c)
            value, takes_part = value_of(members, c), 1.0
            if not present and absent == "penalize":
                value = predicted / voxels if voxels else 0.0
            elif not present and absent == "skip":
                takes_part = 0.0
            table[row, c] = k[c] * takes_part * value
            total += table[row, c]
            counted += k[c] * takes_part
    if reduction == "none":
        return table if include_background else table[:, 1:]
    if reduction == "sum":
        return total
    return total / counted if counted else 0.0


def generalized_dice(
    input: Array,
    truth: Array,
    weight: Array,
    *,
    activation: str | None = "softmax",
    include_background: bool = True,
    class_weight: list[float] | None = None,
    absent: str = "ratio",
    batch: bool = False,
    smooth: float = 1e-5,
    reduction: str = "mean",
    weight_type: str = "square",
) -> Array | float:
    samples, channels = input.shape[:2]
    p = activated(input, activation)
    k = weights_of(class_weight, channels, background=include_background)
    rows = [list(range(samples))] if batch else [[b] for b in range(samples)]
    values, counted = [], 0
    for members in rows:
        classes = [c for c in range(channels) if k[c]]
        sums = {c: _sums(p, truth, weight, members, c) for c in classes}
        there = [c for c in classes if sums[c][2] > 0]
        lift = {c: _lift(sums[c][2], weight_type) for c in there}
        if absent == "ratio":
            lift |= {c: max(lift.values(), default=1.0) for c in classes if c not in there}
        size = math.fsum(k[c] * sums[c][2] for c in there)
        raw = math.fsum(k[c] * lift[c] * sums[c][2] for c in there)
        scale = size / raw if raw else 1.0
        above = math.fsum(k[c] * w * scale * 2 * sums[c][0] for c, w in lift.items()) + smooth
        below = math.fsum(k[c] * w * scale * (sums[c][1] + sums[c][2]) for c, w in lift.items())
        value = 1 - above / (below + smooth) if below + smooth else 0.0
        if absent == "penalize":
            each = [
                value if c in there else sums[c][1] / sums[c][3] if sums[c][3] else 0.0
                for c in classes
            ]
            value = math.fsum(k[c] * v for c, v in zip(classes, each, strict=True))
            value /= math.fsum(k[c] for c in classes)
        takes_part = bool(there) or absent != "skip"
        counted += takes_part
        values.append(value if takes_part else 0.0)
    if reduction == "none":
        return np.array(values)
    return math.fsum(values) / (1 if reduction == "sum" else max(1, counted))


def _lift(volume: float, weight_type: str) -> float:
    return {"square": 1 / volume**2, "simple": 1 / volume, "uniform": 1.0}[weight_type]


def _sums(
    p: Array, truth: Array, weight: Array, members: list[int], c: int
) -> tuple[float, float, float, float]:
    terms = [
        (weight[(b, *v)], p[(b, c, *v)], truth[(b, c, *v)])
        for b, v in itertools.product(members, np.ndindex(p.shape[2:]))
        if weight[(b, *v)] > 0
    ]
    return (
        math.fsum(w * q * t for w, q, t in terms),
        math.fsum(w * q for w, q, _ in terms),
        math.fsum(w * t for w, _, t in terms),
        math.fsum(w for w, _, _ in terms),
    )


def cross_entropy(
    input: Array,
    truth: Array,
    weight: Array,
    *,
    activation: str | None = "softmax",
    include_background: bool = True,
    class_weight: list[float] | None = None,
    label_smoothing: float = 0.0,
    top_k: float | None = None,
    reduction: str = "mean",
) -> Array | float:
    """Return the loss; without ties, which ``top_k`` would share."""
    channels = input.shape[1]
    p = activated(input, activation)
    k = weights_of(class_weight, channels, background=include_background)
    one_by_one = activation == "sigmoid" or channels == 1
    outcomes = 2 if one_by_one else channels
    terms = np.zeros(weight.shape)
    parts = np.zeros(weight.shape)
    for place in np.ndindex(weight.shape):
        if not weight[place] > 0:
            continue
        at = (place[0], slice(None), *place[1:])
        q, t = [float(v) for v in p[at]], [float(v) for v in truth[at]]
        s = [(1 - label_smoothing) * v + label_smoothing / outcomes for v in t]
        if one_by_one:
            each = [-_xlogy(y, v) - _xlogy(1 - y, 1 - v) for y, v in zip(s, q, strict=True)]
            value = math.fsum(w * e for w, e in zip(k, each, strict=True)) / math.fsum(k)
            share = 1.0
        else:
            value = math.fsum(-w * _xlogy(y, v) for w, y, v in zip(k, s, q, strict=True))
            share = math.fsum(w * y for w, y in zip(k, t, strict=True))
            value = value if share else 0.0
        terms[place], parts[place] = weight[place] * value, weight[place] * share
    if top_k is not None:
        ranked = sorted((tuple(v) for v in np.argwhere(parts > 0)), key=lambda v: -terms[v])
        kept = ranked[: max(1, int(len(ranked) * top_k + 1e-9))]
        for place in np.ndindex(terms.shape):
            if place not in kept:
                terms[place] = parts[place] = 0.0
    if reduction == "none":
        return terms
    if reduction == "sum":
        return math.fsum(terms.flat)
    whole = math.fsum(parts.flat)
    return math.fsum(terms.flat) / whole if whole else 0.0


def focal(
    input: Array,
    truth: Array,
    weight: Array,
    *,
    activation: str | None = "softmax",
    include_background: bool = True,
    class_weight: list[float] | None = None,
    gamma: float = 2.0,
    alpha: float | list[float] | None = None,
    reduction: str = "mean",
) -> Array | float:
    channels = input.shape[1]
    p = activated(input, activation)
    k = weights_of(class_weight, channels, background=include_background)
    one_by_one = activation == "sigmoid" or channels == 1
    inside, outside = _alphas(alpha, channels, one_by_one)
    terms, parts = np.zeros(weight.shape), 0.0
    for place in np.ndindex(weight.shape):
        if not weight[place] > 0:
            continue
        value = share = 0.0
        for c in range(channels):
            q, t = float(p[(place[0], c, *place[1:])]), float(truth[(place[0], c, *place[1:])])
            value -= k[c] * inside[c] * (1 - q) ** gamma * _xlogy(t, q)
            if one_by_one:
                value -= k[c] * outside[c] * q**gamma * _xlogy(1 - t, 1 - q)
            share += k[c] * (1.0 if one_by_one else t)
        if one_by_one:
            value, share = value / math.fsum(k), 1.0
        terms[place] = weight[place] * value
        parts += weight[place] * share
    if reduction == "none":
        return terms
    total = math.fsum(terms.flat)
    return total if reduction == "sum" else total / parts if parts else 0.0


def _alphas(
    alpha: float | list[float] | None, channels: int, one_by_one: bool
) -> tuple[list[float], list[float]]:
    """Return the factor of each channel where its structure is, and where it is not."""
    if alpha is None:
        return [1.0] * channels, [1.0] * channels
    each = alpha if isinstance(alpha, list) else [alpha] * channels
    if not one_by_one and not isinstance(alpha, list):
        each = [1 - alpha, *each[1:]]
    return each, [1 - a for a in each]


def _xlogy(x: float, y: float) -> float:
    return x * math.log(y) if x else 0.0
