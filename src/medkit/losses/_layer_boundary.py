"""Layer-boundary loss."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medkit._core import check
from medkit.ops import boundaries_from_probabilities

from ._voxels import Reduction, Voxels, as_voxels

BoundaryActivation = Literal["softmax"]
LossMethod = Literal["sum", "posterior"]
Penalty = Literal["smooth_l1", "l1", "l2"]


def layer_boundary_loss(
    input: Float[Tensor, "batch channel *slices height width"],
    target: Shaped[Tensor, "batch ..."],
    *,
    mask: Shaped[Tensor, "batch ..."] | None = None,
    activation: BoundaryActivation | None = "softmax",
    ignore_index: int | None = None,
    method: LossMethod = "sum",
    temperature: float = 1.0,
    penalty: Penalty = "smooth_l1",
    beta: float = 1.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    r"""Distance between the boundaries of predicted layers and their annotated rows.

    .. math::
        L = \frac{1}{N} \sum_{k,x} \rho\bigl(\hat b_k(x) - b_k(x)\bigr), \qquad
        \rho_{l1}(d) = |d|, \quad \rho_{l2}(d) = d^2, \quad
        \rho_{smooth}(d) = \begin{cases}
            d^2 / 2\beta & |d| < \beta \\ |d| - \beta / 2 & \text{else}
        \end{cases}

    Use it beside a Dice or cross entropy loss to train layers that lie one below the other, such
    as those of a retinal OCT, on the rows that are measured in the end, between pixels too.
    Columns are along the axis before the last; :func:`medkit.ops.boundaries_from_probabilities`
    finds the rows. Sums accumulate in float32 or better.

    Args:
        input: Logits of the layers, from top to bottom.
        target: Rows of the boundaries ``(batch, channel - 1, *slices, width)``, floating point,
            NaN where nobody looked. Or what other losses take, in which a boundary is the number of
            rows of the layers above it: a map of classes, integers, with or without a channel axis,
            or one value per channel.
        mask: Voxels that count, or their weight, in the shape of a map of classes. A column counts
            as much as the voxel of it that counts least.
        activation: "softmax", or None for an input of probabilities.
        ignore_index: Class of voxels that do not count in a target of classes; their columns are
            left out.
        method: "sum" or "posterior", see :func:`medkit.ops.boundaries_from_probabilities`.
        temperature: Temperature of "posterior".
        penalty: :math:`\rho`; the first is squared near zero and absolute beyond.
        beta: Distance, in rows, at which "smooth_l1" changes.
        reduction: "mean" over annotated boundaries of columns that count, "sum" of them, or "none"
            for one value per boundary and column, 0 where it does not count.

    Returns:
        The loss, in rows (squared for "l2"), float32 or float64.

    Raises:
        TypeError: If ``input`` is not floating point or ``mask`` neither boolean nor so.
        ValueError: If shapes do not fit, or a class or an option is out of range.

    Example:
        >>> import torch
        >>> logits = torch.tensor([9.0, 9.0, -9.0, -9.0]).reshape(1, 1, 4, 1)
        >>> logits = torch.cat([logits, -logits], dim=1)
        >>> loss = layer_boundary_loss(logits, torch.tensor([[[3.5]]]), penalty="l1")
        >>> round(float(loss), 4)
        1.5

    References:
        Y. He et al., "Fully convolutional boundary regression for retina OCT segmentation", MICCAI,
        2019 (smooth L1 distance between expected and annotated rows).
    """
    check.one_of("activation", activation, ("softmax", None))
    check.one_of("method", method, ("sum", "posterior"))
    check.one_of("penalty", penalty, ("smooth_l1", "l1", "l2"))
    check.one_of("reduction", reduction, ("mean", "sum", "none"))
    beta = check.positive("beta", beta)
    _check_input(input)
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    rows, columns = _annotated(input, target, mask, ignore_index)
    weight = (~rows.isnan()).to(dtype)
    scores = input
    if columns is not None:
        weight = weight * columns.to(dtype).unsqueeze(1)
        counted = (columns > 0).unsqueeze(1).unsqueeze(-2)
        scores = torch.where(counted, input, 0)  # whatever stands where nothing counts
    log_input = activation == "softmax" and method == "posterior"
    if activation == "softmax":
        softmax = F.log_softmax if log_input else F.softmax
        scores = softmax(scores, dim=1, dtype=dtype)
    found = boundaries_from_probabilities(
        scores.movedim(1, -3), method=method, temperature=temperature, log_input=log_input
    ).movedim(-2, 1)
    terms = weight * _distance(torch.where(weight > 0, found - rows.to(dtype), 0), penalty, beta)
    if reduction == "none":
        return terms
    number = weight.sum()
    return terms.sum() / (torch.where(number > 0, number, 1) if reduction == "mean" else 1)


class LayerBoundaryLoss(nn.Module):
    """Distance between predicted and annotated layer boundaries, with its options stored.

    Args:
        activation: "softmax", or None for an input of probabilities.
        ignore_index: Class of voxels that do not count in a target of classes.
        method: How rows are found, "sum" or "posterior".
        temperature: Temperature of "posterior".
        penalty: Penalty of a distance: "smooth_l1", "l1" or "l2".
        beta: Distance, in rows, at which "smooth_l1" changes.
        reduction: "mean" over annotated boundaries and columns, "sum", or "none".

    Example:
        >>> import torch
        >>> loss = LayerBoundaryLoss(penalty="l1")
        >>> target = torch.tensor([[[1.0, torch.nan]]])  # one boundary, two columns
        >>> loss(torch.zeros(1, 2, 4, 2), target)
        tensor(1.)

    References:
        Y. He et al., "Fully convolutional boundary regression for retina OCT segmentation", MICCAI,
        2019.
    """

    def __init__(
        self,
        *,
        activation: BoundaryActivation | None = "softmax",
        ignore_index: int | None = None,
        method: LossMethod = "sum",
        temperature: float = 1.0,
        penalty: Penalty = "smooth_l1",
        beta: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.activation: BoundaryActivation | None = activation
        self.ignore_index = ignore_index
        self.method: LossMethod = method
        self.temperature = temperature
        self.penalty: Penalty = penalty
        self.beta = beta
        self.reduction: Reduction = reduction

    def forward(
        self,
        input: Float[Tensor, "batch channel *slices height width"],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """Return the loss of logits against rows or a map of classes.

        Args:
            input: Logits of the layers, from top to bottom.
            target: Rows of the boundaries, NaN where nobody looked, or a map of classes or one
                value per channel.
            mask: Voxels that count, or their weight; None counts all alike.
        """
        return layer_boundary_loss(
            input,
            target,
            mask=mask,
            activation=self.activation,
            ignore_index=self.ignore_index,
            method=self.method,
            temperature=self.temperature,
            penalty=self.penalty,
            beta=self.beta,
            reduction=self.reduction,
        )


def _distance(difference: Tensor, penalty: Penalty, beta: float) -> Tensor:
    if penalty == "l1":
        return difference.abs()
    if penalty == "l2":
        return difference.square()
    return F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none", beta=beta)


def _check_input(input: Tensor) -> None:
    if not input.is_floating_point():
        raise TypeError(f"input must be floating point; got {input.dtype}")
    if input.ndim < 4 or input.shape[1] < 2:
        rule = "(batch, channel, *slices, height, width) with two channels or more"
        raise check.fail("input", rule, f"shape {tuple(input.shape)}")


def _annotated(
    input: Tensor, target: Tensor, mask: Tensor | None, ignore_index: int | None
) -> tuple[Tensor, Tensor | None]:
    """Return the rows of the boundaries, and how much each column counts."""
    batch, channels, *slices, height, width = input.shape
    if not target.is_floating_point() or target.ndim == input.ndim:
        voxels = as_voxels(input, target, mask, activation=None, ignore_index=ignore_index)
        return _rows(voxels.target, input), _columns(voxels)
    if tuple(target.shape) != (batch, channels - 1, *slices, width):
        rule = (
            "rows (batch, channel - 1, *slices, width), integer classes (batch, *slices, height, "
            f"width), or a value per channel, for an input of shape {tuple(input.shape)}"
        )
        raise check.fail("target", rule, f"shape {tuple(target.shape)}")
    if ignore_index is not None:
        rule = "None for a target of rows, where NaN says what to leave out"
        raise check.fail("ignore_index", rule, ignore_index)
    if mask is None:
        return target, None
    nothing = torch.zeros((), dtype=torch.int64, device=input.device)
    nothing = nothing.expand(batch, *slices, height, width)
    return target, _columns(as_voxels(input, nothing, mask, activation=None, ignore_index=None))


def _rows(target: Tensor, input: Tensor) -> Tensor:
    """Return how many rows of each column are above each boundary."""
    if target.ndim == input.ndim:
        dtype = torch.float64 if target.dtype == torch.float64 else torch.float32
        return target.sum(-2, dtype=dtype)[:, :-1].cumsum(1)
    return torch.stack([(target <= k).sum(-2) for k in range(input.shape[1] - 1)], dim=1).float()


def _columns(voxels: Voxels) -> Tensor | None:
    """Return how much each column counts: as much as the voxel of it that counts least."""
    return None if voxels.weight is None else voxels.weight.amin(-2)
