"""Errors of layer boundaries in which no column vanishes."""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from medkit._core import check

from ._scores import STATUSES, Scores

Missing = Literal["error", "penalize", "ignore"]
MISSING = ("error", "penalize", "ignore")


class LayerErrors(NamedTuple):
    """Errors over all annotated columns, lengths in mm, and how many of them had a prediction.

    Attributes:
        mae: Mean absolute error of each boundary.
        rmse: Root mean square error of each boundary.
        bias: Mean of prediction minus truth; positive is too low in the image.
        p95: 95th percentile of the absolute error.
        ccc: Lin's concordance correlation of predicted and true rows; NaN if both are constant.
        coverage: Share of annotated columns with a prediction, in [0, 1].
        columns: Number of annotated columns.
        thickness_mae: Mean absolute error of the distance to the next boundary.
        thickness_bias: Mean error of that distance; positive is too thick.
        cases: Mean absolute error of each image (row) and boundary, with what became of it.
    """

    mae: Float64[Tensor, " boundary"]
    rmse: Float64[Tensor, " boundary"]
    bias: Float64[Tensor, " boundary"]
    p95: Float64[Tensor, " boundary"]
    ccc: Float64[Tensor, " boundary"]
    coverage: Float64[Tensor, " boundary"]
    columns: Int64[Tensor, " boundary"]
    thickness_mae: Float64[Tensor, " layer"]
    thickness_bias: Float64[Tensor, " layer"]
    cases: Scores


def layer_errors(
    prediction: Float[Tensor, "batch boundary column"],
    target: Float[Tensor, "batch boundary column"],
    *,
    spacing: float = 1.0,
    missing: Missing = "error",
    height: float | None = None,
) -> LayerErrors:
    r"""Return errors of the rows of layer boundaries, over all annotated columns.

    .. math:: \mathrm{MAE} = \frac1n \sum_i |p_i - t_i|, \quad
              \mathrm{CCC} = \frac{2\,\mathrm{cov}(p, t)}
                                  {\sigma_p^2 + \sigma_t^2 + (\bar p - \bar t)^2}

    with moments divided by n. Use it for the layers of the retina. NaN in the truth is a column
    nobody annotated: it does not count, whatever is predicted there. NaN in the prediction of an
    annotated column is a miss, and ``missing`` says what it is worth; it is never an error of 0.

    Args:
        prediction: Row of each boundary in each column, from the top; NaN where none was found.
        target: True rows.
        spacing: Distance of two rows in mm; 1 keeps rows.
        missing: A miss raises an "error"; or it counts as the edge of the image that is farther
            from the truth, "penalize", and a layer that lacks one as 0 or ``height`` thick,
            whichever is farther; or it is left out of all but ``coverage``, "ignore". An
            image without any prediction counts as missed either way.
        height: Number of rows of the image, for "penalize".

    Returns:
        Errors of each boundary; NaN where no column counts.

    Raises:
        ValueError: If a prediction is missing and ``missing`` is "error", or shapes differ.

    Example:
        >>> import torch
        >>> truth = torch.tensor([[[10.0, 10.0, 10.0, 10.0]]])
        >>> found = torch.tensor([[[10.0, torch.nan, torch.nan, torch.nan]]])
        >>> layer_errors(found, truth, missing="penalize", height=100).mae
        tensor([67.5000], dtype=torch.float64)
        >>> result = layer_errors(found, truth, missing="ignore")
        >>> result.mae.item(), result.coverage.item()
        (0.0, 0.25)

    References:
        L. I. Lin, "A Concordance Correlation Coefficient to Evaluate Reproducibility", Biometrics
        45, 1989, equation 2 (its estimate).
    """
    metric = LayerBoundaryErrors(spacing=spacing, missing=missing, height=height)
    metric.update(prediction, target)
    return metric.compute()


class LayerBoundaryErrors:
    """Errors of layer boundaries over any number of batches.

    It keeps the rows of every column; sums go over sorted numbers, so that results are the same
    bit for bit however images are batched, ordered or split over processes.

    Args:
        spacing: Distance of two rows in mm.
        missing: What a miss is worth: "error", "penalize" or "ignore".
        height: Number of rows of the image, for "penalize".

    Example:
        >>> import torch
        >>> metric = LayerBoundaryErrors(spacing=0.004)
        >>> metric.update(torch.full((2, 1, 5), 101.0), torch.full((2, 1, 5), 100.0))
        >>> metric.compute().bias.item()
        0.004

    References:
        L. I. Lin, "A Concordance Correlation Coefficient to Evaluate Reproducibility", Biometrics
        45, 1989; see ``layer_errors``.
    """

    def __init__(
        self, *, spacing: float = 1.0, missing: Missing = "error", height: float | None = None
    ) -> None:
        check.one_of("missing", missing, MISSING)
        if (missing == "penalize") != (height is not None):
            raise check.fail("height", "given for missing='penalize', and only there", height)
        self.spacing: float = check.positive("spacing", spacing)
        self.missing: Missing = missing
        self.height: float | None = None if height is None else check.positive("height", height)
        self._rows: list[np.ndarray] = []

    def update(
        self,
        prediction: Float[Tensor, "batch boundary column"],
        target: Float[Tensor, "batch boundary column"],
    ) -> None:
        """Keep the boundaries of a batch of images.

        Args:
            prediction: Row of each boundary in each column; NaN where none was found.
            target: True rows; NaN where nobody annotated.
        """
        if prediction.shape != target.shape or target.ndim != 3:
            rule = f"(batch, boundary, column) like target {tuple(target.shape)}"
            raise check.fail("prediction", rule, tuple(prediction.shape))
        both = torch.stack([prediction.detach(), target.detach()]).double().cpu().numpy()
        if np.isinf(both).any():
            raise check.fail("prediction and target", "finite or NaN", "an infinite row")
        missed = int((np.isnan(both[0]) & ~np.isnan(both[1])).sum())
        if self.missing == "error" and missed:
            raise check.fail(
                "prediction",
                "in every annotated column (or missing='penalize' or 'ignore')",
                f"NaN in {missed} of them",
            )
        if self._rows and self._rows[0].shape[2] != both.shape[2]:
            raise check.fail("prediction", f"of {self._rows[0].shape[2]} boundaries", both.shape[2])
        self._rows.append(both)

    def compute(self) -> LayerErrors:
        """Return the errors over everything seen so far.

        Raises:
            ValueError: If there was no update.
        """
        if not self._rows:
            raise check.fail("LayerBoundaryErrors", "updated before compute()", "no images")
        filled = [(self._fill(p, t), t) for p, t in self._rows]
        boundaries = self._rows[0].shape[2]
        columns = [_pairs([(p[:, k], t[:, k]) for p, t in filled]) for k in range(boundaries)]
        layers = [
            _pairs([self._thickness(p, t, k) for p, t in self._rows]) for k in range(boundaries - 1)
        ]
        each = torch.tensor([_errors(pair, self.spacing) for pair in columns], dtype=torch.float64)
        thick = [_errors(pair, self.spacing) for pair in layers]
        thickness = torch.tensor(thick, dtype=torch.float64).reshape(-1, 5)
        found, annotated = self._counts()
        return LayerErrors(
            mae=each[:, 0],
            rmse=each[:, 1],
            bias=each[:, 2],
            p95=each[:, 3],
            ccc=each[:, 4],
            coverage=found / annotated,
            columns=annotated,
            thickness_mae=thickness[:, 0],
            thickness_bias=thickness[:, 2],
            cases=self._cases(filled),
        )

    def merge(self, other: "LayerBoundaryErrors") -> None:
        """Add the images of another accumulator, for instance that of another process.

        Args:
            other: One of the same options; it is left as it is.

        Raises:
            TypeError: If ``other`` is of another kind.
            ValueError: If its options differ.
        """
        if not isinstance(other, LayerBoundaryErrors):
            raise TypeError(f"other must be a LayerBoundaryErrors; got {other!r}")
        if other.options != self.options:
            raise check.fail("other", f"made with {self.options}", f"{other.options}")
        self._rows += other.rows

    def reset(self) -> None:
        """Forget all images."""
        self._rows.clear()

    @property
    def rows(self) -> list[np.ndarray]:
        """Predicted and true rows of each batch seen so far."""
        return list(self._rows)

    @property
    def options(self) -> dict[str, object]:
        """What the accumulator was made with, by name."""
        return {"spacing": self.spacing, "missing": self.missing, "height": self.height}

    def _counts(self) -> tuple[Tensor, Tensor]:
        """Return how many annotated columns of each boundary were found, and how many there are."""
        known = [~np.isnan(t) for _, t in self._rows]
        got = [k & ~np.isnan(p) for k, (p, _) in zip(known, self._rows, strict=True)]
        found, annotated = (
            torch.as_tensor(np.sum([each.sum((0, 2)) for each in flags], axis=0))
            for flags in (got, known)
        )
        return found.double(), annotated

    def _fill(self, prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Return predictions with 0 or the height, whichever is farther, in place of a miss."""
        if self.height is None:
            return prediction
        farther = np.where(target < self.height / 2, self.height, 0.0)
        return np.where(np.isnan(prediction) & ~np.isnan(target), farther, prediction)

    def _thickness(
        self, prediction: np.ndarray, target: np.ndarray, layer: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return predicted and true thickness; a miss counts as 0 or the height, if farther."""
        p, t = (rows[:, layer + 1] - rows[:, layer] for rows in (prediction, target))
        return self._fill(p, t), t

    def _cases(self, filled: list[tuple[np.ndarray, np.ndarray]]) -> Scores:
        """Return the mean absolute error of each image and boundary; infinite if all is missed."""
        values: list[list[float]] = []
        status: list[list[int]] = []
        for (raw, _), (p, t) in zip(self._rows, filled, strict=True):
            for case in range(len(t)):
                known = ~np.isnan(t[case])
                got = known & ~np.isnan(raw[case])
                names = [
                    "both_empty" if not k.any() else "ok" if g.any() else "missed"
                    for k, g in zip(known, got, strict=True)
                ]
                status.append([STATUSES.index(name) for name in names])
                means = [
                    _errors(_pairs([pair]), self.spacing)[0]
                    for pair in zip(p[case], t[case], strict=True)
                ]
                worst = [
                    math.inf if name == "missed" and math.isnan(mean) else mean
                    for name, mean in zip(names, means, strict=True)
                ]
                values.append(worst)
        return Scores(
            torch.tensor(values, dtype=torch.float64),
            torch.tensor(status, dtype=torch.uint8),
            tuple(range(len(status[0]) if status else 0)),
            0.0,
        )


def _pairs(rows: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return predicted and true numbers ``(column, 2)`` where both are known, sorted."""
    pairs = np.concatenate([np.stack([p.ravel(), t.ravel()], axis=-1) for p, t in rows])
    pairs = pairs[~np.isnan(pairs).any(1)]
    return pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]


def _errors(pairs: np.ndarray, spacing: float) -> list[float]:
    """Return MAE, RMSE, bias, 95th percentile and concordance."""
    if not len(pairs):
        return [math.nan] * 5
    p, t = pairs[:, 0], pairs[:, 1]
    error = p - t
    sizes = np.abs(error)
    moments = np.cov(pairs, rowvar=False, bias=True)
    shared = float(moments[0, 1])
    spread = float(moments[0, 0] + moments[1, 1]) + float(np.mean(error)) ** 2
    lengths = (
        float(np.mean(sizes)),
        math.sqrt(float(np.mean(error**2))),
        float(np.mean(error)),
        float(np.percentile(sizes, 95)),
    )
    concordance = 2 * shared / spread if spread else math.nan
    return [*(length * spacing for length in lengths), concordance]
