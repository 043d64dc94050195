"""Calibration: whether a probability of 0.8 is right eight times in ten."""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from medkit._core import check

from ._sum_accumulator import Options, SumAccumulator

UNIT = 2**30
"""Probabilities are added up as whole multiples of 1 / UNIT, so that sums are exact."""

FINE = 2**14
"""Number of intervals of confidence of which bins of equal size are made."""


class CalibrationResult(NamedTuple):
    """How well probabilities agree with what happened.

    Attributes:
        ece: Expected calibration error over bins of equal width, in [0, 1].
        adaptive_ece: The same over bins that hold equally many samples.
        max_error: The largest gap of a bin of equal width that has samples.
        brier: Mean squared difference of probabilities and truth, summed over classes, in [0, 2].
        confidence: Mean probability of the decision in each bin, the curve's x; NaN if empty.
        accuracy: Share of right decisions in each bin, the curve's y; NaN if empty.
        counts: Number of samples in each bin.
        edges: Limits of the bins; a bin holds its upper limit.
        status: "ok", or "empty" if no sample counts: then all errors are NaN, and none is 0.
    """

    ece: float
    adaptive_ece: float
    max_error: float
    brier: float
    confidence: Float64[Tensor, " bin"]
    accuracy: Float64[Tensor, " bin"]
    counts: Int64[Tensor, " bin"]
    edges: Float64[Tensor, " edge"]
    status: Literal["ok", "empty"]


def calibration(
    probabilities: Float[Tensor, "batch class *spatial"],
    target: Int[Tensor, "batch *spatial"],
    *,
    num_bins: int = 15,
    ignore_index: int | None = None,
) -> CalibrationResult:
    r"""Return calibration errors, the Brier score and the reliability curve.

    .. math:: \mathrm{ECE} = \sum_m \frac{|B_m|}{n}
                             \bigl|\mathrm{acc}(B_m) - \mathrm{conf}(B_m)\bigr|, \quad
              \mathrm{Brier} = \frac1n \sum_i \sum_c (p_{ic} - y_{ic})^2

    with the samples in bins by the probability of the likeliest class: of equal width, (lo, hi],
    or adaptive, of equal size, where samples of one confidence stay together. Use it before a
    probability is shown to anybody, and after ``inference.TemperatureScaling``. Samples are
    patients or voxels; for two classes give both.

    Probabilities count to 2^-30, about 1e-9, and the limits of adaptive bins lie on multiples of
    2^-14, so that all sums are whole numbers.

    Args:
        probabilities: Probability of each class, as from a softmax, in [0, 1].
        target: True class of each sample.
        num_bins: Number of bins.
        ignore_index: Target that does not count. None counts all.

    Returns:
        Errors and the curve; NaN if no sample counts.

    Raises:
        ValueError: If a probability lies outside of [0, 1], or a label is no class.

    Example:
        >>> import torch
        >>> p = torch.tensor([0.9, 0.9, 0.9, 0.6])
        >>> result = calibration(torch.stack([p, 1 - p], 1), torch.tensor([0, 0, 1, 0]))
        >>> round(result.ece, 4), round(result.brier, 4)
        (0.275, 0.495)

    References:
        C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3. J. Nixon
        et al., "Measuring Calibration in Deep Learning", CVPR Workshops 2019, equation 3 (adaptive
        bins, here of the likeliest class). G. W. Brier, "Verification of Forecasts Expressed in
        Terms of Probability", Monthly Weather Review 78, 1950, equation 2.
    """
    metric = Calibration(num_bins=num_bins, ignore_index=ignore_index)
    metric.update(probabilities, target)
    return metric.compute()


class Calibration(SumAccumulator):
    """Calibration errors, Brier score and reliability curve over any number of batches.

    It keeps whole numbers only, about 400 kB however many samples there are, so that results are
    the same bit for bit however samples are batched or split over processes.

    Args:
        num_bins: Number of bins.
        ignore_index: Target that does not count; None counts all.

    Example:
        >>> import torch
        >>> metric = Calibration()
        >>> metric.update(torch.tensor([[0.75, 0.25]]), torch.tensor([0]))
        >>> metric.update(torch.tensor([[0.75, 0.25]]), torch.tensor([1]))
        >>> metric.compute().ece
        0.25

    References:
        C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3; see
        ``calibration``.
    """

    def __init__(self, *, num_bins: int = 15, ignore_index: int | None = None) -> None:
        super().__init__()
        self.num_bins: int = check.integer("num_bins", num_bins, minimum=1)
        self.ignore_index = ignore_index

    def update(
        self,
        probabilities: Float[Tensor, "batch class *spatial"],
        target: Int[Tensor, "batch *spatial"],
    ) -> None:
        """Count a batch of samples.

        Args:
            probabilities: Probability of each class, in [0, 1].
            target: True class of each sample.
        """
        p, t = _samples(probabilities, target, self.ignore_index)
        confidence, decision = p.max(-1)
        edges = self._edges(p)[1:-1].contiguous()
        bins = torch.bucketize(confidence, edges)
        fine = (confidence * FINE).ceil().long().clamp(1, FINE) - 1
        shares = torch.stack([torch.ones_like(t), _whole(confidence), (decision == t).long()], -1)
        places = torch.cat([bins, self.num_bins + fine])
        total = t.new_zeros(self.num_bins + FINE + 1, 3)
        total.index_add_(0, places, torch.cat([shares, shares]))
        truth = torch.zeros_like(p).scatter_(1, t.unsqueeze(1), 1.0)
        total[-1, 0] = _whole((p - truth).square().sum(-1)).sum()
        self._add(total)

    def compute(self) -> CalibrationResult:
        """Return the results of everything seen so far.

        Raises:
            ValueError: If there was no update.
        """
        total = self.total
        even, fine, brier = total[: self.num_bins], total[self.num_bins : -1], total[-1, 0]
        samples = int(even[:, 0].sum())
        counts, confidence, accuracy = _means(even)
        gaps = (confidence - accuracy).abs()
        return CalibrationResult(
            _error(even),
            _error(_equal_bins(fine, self.num_bins)),
            float(gaps[counts > 0].max()) if samples else math.nan,
            int(brier) / UNIT / samples if samples else math.nan,
            confidence,
            accuracy,
            counts,
            self._edges(confidence),
            "ok" if samples else "empty",
        )

    @property
    def options(self) -> Options:
        """What the accumulator was made with, by name."""
        return {"num_bins": self.num_bins, "ignore_index": self.ignore_index}

    def _edges(self, like: Tensor) -> Tensor:
        return torch.linspace(0, 1, self.num_bins + 1, dtype=torch.float64, device=like.device)


def _samples(
    probabilities: Tensor, target: Tensor, ignore_index: int | None
) -> tuple[Tensor, Tensor]:
    """Return probabilities ``(sample, class)`` in float64 and classes of the samples that count."""
    shape = (probabilities.shape[0], *probabilities.shape[2:])
    if tuple(target.shape) != shape:
        raise check.fail("target", f"of shape {shape} for these probabilities", tuple(target.shape))
    classes = probabilities.shape[1]
    p = probabilities.detach().movedim(1, -1).reshape(-1, classes).double()
    t = target.reshape(-1).long()
    if ignore_index is not None:
        p, t = p[t != ignore_index], t[t != ignore_index]
    if len(t) and not bool(((p >= 0) & (p <= 1)).all()):
        raise check.fail("probabilities", "in [0, 1]", f"{p.min().item()} to {p.max().item()}")
    if len(t) and not (int(t.min()) >= 0 and int(t.max()) < classes):
        raise check.fail("target", f"in 0 to {classes - 1}", f"{int(t.min())} to {int(t.max())}")
    return p, t


def _whole(values: Tensor) -> Tensor:
    """Return values as whole multiples of 1 / UNIT."""
    return (values * UNIT).round().long()


def _means(bins: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the count, mean confidence and accuracy of each bin."""
    counts, confidence, right = bins.unbind(-1)
    return counts, confidence.double() / UNIT / counts, right.double() / counts


def _error(bins: Tensor) -> float:
    """Return the mean gap of confidence and accuracy, weighted by the counts."""
    counts, confidence, accuracy = _means(bins)
    if not counts.any():
        return math.nan
    gaps = ((confidence - accuracy).abs() * counts)[counts > 0]
    return gaps.sum().item() / int(counts.sum())


def _equal_bins(fine: Tensor, num_bins: int) -> Tensor:
    """Return bins of about equally many samples, each made of neighbouring fine intervals."""
    samples = fine[:, 0].sum()
    # an interval belongs to the bin in which the middle one of its samples lies
    middle = 2 * fine[:, 0].cumsum(0) - fine[:, 0]
    place = (middle * num_bins // (2 * samples).clamp(min=1)).clamp(max=num_bins - 1)
    return fine.new_zeros(num_bins, 3).index_add_(0, place, fine)
