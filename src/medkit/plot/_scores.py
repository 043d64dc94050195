"""Pictures of how a classifier is right and wrong, and how sure it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from medkit._core import check
from medkit._core.optional import require

from ._palette import OKABE_ITO

if TYPE_CHECKING:
    import matplotlib.figure

_DARK = 0.5


def confusion_matrix(
    counts: Tensor | np.ndarray, *, names: Sequence[str] | None = None
) -> "matplotlib.figure.Figure":
    """Figure of a confusion matrix: of each true class, the share predicted as each class.

    Each cell shows its share of the true class, which is also its shade, and its count. A class
    without cases stays white and has no shares.

    Args:
        counts: Number of cases by true class, in rows, and predicted class, in columns.
        names: Names of the classes; None numbers them.

    Returns:
        The figure. It belongs to no window and no global state.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If ``counts`` is not square or negative somewhere, or names are missing.

    Example:
        >>> import numpy as np
        >>> figure = confusion_matrix(np.array([[8, 2], [1, 3]]), names=("healthy", "ill"))
        >>> figure.axes[0].texts[1].get_text().split()
        ['20', '%', '2']
    """
    array = _numbers(counts)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or (array < 0).any():
        raise check.fail("counts", "(classes, classes) of zero or more", f"shape {array.shape}")
    size = len(array)
    called = [str(k) for k in range(size)] if names is None else list(names)
    if len(called) != size:
        raise check.fail("names", f"{size}, one per class", called)
    totals = array.sum(1, keepdims=True)
    shares = array / np.where(totals > 0, totals, 1)
    side = max(3.0, 0.9 * size)
    figure: Any = require("matplotlib.figure", extra="plot").Figure(
        figsize=(side + 1.2, side + 0.8), layout="constrained"
    )
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(size, size):
        share = f"{100 * shares[row, column]:.0f} %\n" if totals[row, 0] else ""
        color = "white" if shares[row, column] > _DARK else "black"
        text = f"{share}{array[row, column]:g}"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=10)
    axes.set_xticks(range(size), called, rotation=45 if max(map(len, called)) > 6 else 0)
    axes.set_yticks(range(size), called)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0)
    return figure


def reliability_diagram(
    confidence: Tensor | np.ndarray, correct: Tensor | np.ndarray, *, num_bins: int = 10
) -> "matplotlib.figure.Figure":
    r"""Figure of how often predictions are right against how sure they are.

    In bins of equal width, the share that is right over the mean confidence; on the dashed line
    confidence is frequency. Below is the number of predictions in each bin. The title gives the
    expected calibration error,

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{n}
              \left| \mathrm{acc}(b) - \mathrm{conf}(b) \right|

    Args:
        confidence: Probability of what was predicted, in [0, 1], of any shape.
        correct: Whether it was right, of the same shape.
        num_bins: Number of bins; a value on an edge belongs to the bin below.

    Returns:
        The figure. It belongs to no window and no global state.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If shapes differ, nothing is given, a confidence is not in [0, 1], or
            ``correct`` is neither 0 nor 1.

    Example:
        >>> import numpy as np
        >>> figure = reliability_diagram(np.full(4, 0.9), np.array([1, 1, 0, 1]))
        >>> figure.axes[0].get_title()
        'ECE 0.150'

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks",
        ICML, 2017, equations 2 to 5.
    """
    sure, right = _numbers(confidence).ravel(), _numbers(correct).ravel()
    bins = check.integer("num_bins", num_bins, minimum=1)
    if sure.shape != right.shape or not sure.size:
        raise check.fail("correct", f"of {sure.size} values, at least one", f"{right.size}")
    if not np.isin(right, (0, 1)).all():
        raise check.fail("correct", "0 or 1", f"{right.min():g} to {right.max():g}")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise check.fail("confidence", "in [0, 1]", f"{sure.min():g} to {sure.max():g}")
    own = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(own, minlength=bins)
    used = count > 0
    mean, share = (np.bincount(own, x, minlength=bins)[used] / count[used] for x in (sure, right))
    error = float((count[used] * np.abs(share - mean)).sum() / len(sure))
    figure: Any = require("matplotlib.figure", extra="plot").Figure(
        figsize=(4.2, 5.0), layout="constrained"
    )
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    above.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1)
    above.vlines(mean, mean, share, color=OKABE_ITO[1], linewidth=3, alpha=0.5, label="gap")
    above.plot(mean, share, color=OKABE_ITO[0], marker="o", markersize=5, label="share right")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="share right", title=f"ECE {error:.3f}")
    above.legend(frameon=False, fontsize=9, loc="upper left")
    centres = (np.arange(bins) + 0.5) / bins
    below.bar(centres, count, width=0.9 / bins, color=OKABE_ITO[0])
    below.set(xlabel="confidence", ylabel="predictions")
    for axes in (above, below):
        axes.grid(visible=True, color="0.9")
        axes.set_axisbelow(True)
    return figure


def _numbers(x: Tensor | np.ndarray) -> np.ndarray:
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
    return array.astype(np.float64)
