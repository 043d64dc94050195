"""Boundary loss."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check
from medkit.ops import Overlap, distance_transform, map_error, one_hot

from ._class_loss import ClassLoss
from ._overlap_loss import ABSENT, Absent, reduce_classes
from ._voxels import (
    Activation,
    Reduction,
    Voxels,
    as_voxels,
    can_look_at,
)


def boundary_loss(
    input: Float[Tensor, "batch channel *spatial"],
    target: Shaped[Tensor, "batch ..."],
    *,
    mask: Shaped[Tensor, "batch ..."] | None = None,
    distance_map: Shaped[Tensor, "batch ..."] | None = None,
    activation: Activation | None = "softmax",
    include_background: bool = True,
    ignore_index: int | None = None,
    class_weight: Sequence[float] | Tensor | None = None,
    absent: Absent = "ratio",
    reduction: Reduction = "mean",
    spacing: float | Sequence[float] | None = None,
) -> Float[Tensor, "..."]:
    r"""Mean error of probabilities, each voxel weighed by its distance to the boundary, in mm.

    .. math::

        L_{bc} = \frac{\sum_v m\,\phi_c\,(p_c - t_c)}{\sum_v m}
            = \frac{\sum_v m\,|\phi_c|\,|p_c - t_c|}{\sum_v m}, \qquad
        L = \frac{\sum_{bc} k_c L_{bc}}{\sum_{bc} k_c}

    with probabilities :math:`p`, target :math:`t`, its signed distance map :math:`\phi`, negative
    inside (:func:`medkit.ops.distance_transform`), mask :math:`m` and class weights :math:`k`, in
    each sample :math:`b` and class :math:`c`.

    Use it beside a Dice or cross entropy loss, with a small weight that grows during training, for
    small structures and for surfaces that are measured in the end: an error costs the more the
    farther it lies from where the boundary should be.

    The papers and other libraries leave :math:`-\phi\,t` out, which is constant: the gradient is
    the same, but their loss is negative for a good prediction, and ours is zero for a perfect one.
    The paper's program and MONAI also count distances inside from the outermost voxels, one less
    than here; there a missing outer layer is free. A target that lacks a class has no boundary:
    there :math:`\phi` is the distance to the nearest voxel beyond the edge of the image, or not
    counted, where the nearest of it may lie unseen. So false positives cost; other libraries give
    0. A class that fills the image costs as much where it is missed. There is no ratio, hence no
    option ``batch``.

    The distances are computed on the CPU at every call, for each class of each sample. To do that
    in the workers of a loader instead, or where spacings differ within a batch, pass
    ``distance_map``, for a label of shape ``(1, *spatial)`` made by
    ``distance_transform(one_hot(label, num_classes=3, dtype=torch.bool), spacing=spacing,
    signed=True, missing="edge")[0]``, with ``valid`` if there are labels to ignore. Backward
    keeps the input, the map and the mask. Sums accumulate in float32, or float64 for such input.

    Args:
        input: Logits, or probabilities if ``activation`` is None, with two or three spatial axes;
            one channel with "sigmoid" or None.
        target: Class map of integers or booleans, ``(batch, *spatial)`` or
            ``(batch, 1, *spatial)``, or values in [0, 1] per channel, of the shape of ``input``,
            which are inside above one half.
        mask: Voxels that count, ``(batch, *spatial)`` or ``(batch, 1, *spatial)``: boolean, or
            weights of zero or more. Voxels where it is zero are like those outside the image: no
            distance is measured to them. None counts all.
        distance_map: :math:`\phi` of each channel, of the shape of ``input``, floating point,
            negative inside, finite where voxels count; taken as it is. None makes it here.
        activation: What makes probabilities of ``input``; None if it holds them already.
        include_background: Whether channel 0 has a part in the loss. It is dropped after the
            activation.
        ignore_index: Label of voxels that do not count, as under a mask; needs a class map. None
            counts all.
        class_weight: Weight of each channel of ``input``, the background's included, of which
            only ratios matter. None weighs all the same.
        absent: What a class without target voxels adds: "ratio" the formula above; "penalize" its
            mean predicted probability, a distance of 1; "skip" nothing.
        reduction: "mean" is the weighted mean; "sum" adds up the weighted values; "none" returns
            them, ``(batch, channel)`` without a dropped background.
        spacing: Distance in mm between neighbouring voxels along each spatial axis, or one number
            for all. None counts distances in voxels. Not used with ``distance_map``.

    Returns:
        The loss in mm, or voxels; zero for a perfect prediction, and never negative.

    Raises:
        TypeError: If a tensor has the wrong type.
        ValueError: If shapes do not fit, a label is no class, ``distance_map`` is not finite, or
            an option is unknown.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[0, 1, 1, 0, 0, 0]]])
        >>> near = torch.tensor([[[[0.0, 1.0, 1.0, 1.0, 0.0, 0.0]]]])
        >>> far = torch.tensor([[[[0.0, 1.0, 1.0, 0.0, 0.0, 1.0]]]])
        >>> for p in (near, far):
        ...     print(f"{boundary_loss(p, target, activation=None, spacing=2.0):.4f}")
        0.3333
        1.0000

    References:
        H. Kervadec et al., "Boundary loss for highly unbalanced segmentation", Medical Image
        Analysis 67, 2021, section 2: the boundary loss, a regional integral.
    """
    check.one_of("absent", absent, ABSENT)
    voxels = as_voxels(input, target, mask, activation=activation, ignore_index=ignore_index)
    dropped = 0 if include_background or input.shape[1] == 1 else 1
    inside = _inside(voxels)[:, dropped:]
    weight = None if voxels.weight is None else voxels.weight.unsqueeze(1)
    valid = None if weight is None else weight > 0
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    if distance_map is None:
        complements = voxels.target.ndim < input.ndim and input.shape[1] == inside.shape[1] == 2
        phi = _made(inside, spacing, valid, dtype, complements=complements)
    else:
        phi = _given(distance_map, input, valid)[:, dropped:].to(dtype)
    present = inside if valid is None else inside & valid
    number = present.flatten(2).sum(-1, dtype=dtype)
    if absent == "penalize":
        phi = torch.where((number > 0).reshape(*number.shape, *(1,) * (phi.ndim - 2)), phi, 1.0)
    if weight is not None:
        phi = torch.where(weight > 0, phi, 0.0) * weight.to(dtype)
    error = map_error(input, phi, activation=activation, valid=valid)
    error, number = F.pad(error, (dropped, 0)), F.pad(number, (dropped, 0))
    total = _total(weight, error, phi)
    return reduce_classes(
        error / torch.where(total == 0, 1.0, total),
        Overlap(number, error, number, total),
        include_background=include_background,
        class_weight=class_weight,
        absent="skip" if absent == "skip" else "ratio",
        reduction=reduction,
    )


def _inside(voxels: Voxels) -> Tensor:
    """Return which voxels are inside of each channel."""
    target = voxels.target
    if target.ndim < voxels.input.ndim:
        return one_hot(target, num_classes=voxels.input.shape[1], dtype=torch.bool)
    return target > 0.5 if target.is_floating_point() else target.bool()


def _made(
    inside: Tensor,
    spacing: float | Sequence[float] | None,
    valid: Tensor | None,
    dtype: torch.dtype,
    *,
    complements: bool,
) -> Tensor:
    """Return the distance map of each channel; of two complements one is the other's negative."""
    phi = distance_transform(
        inside[:, 1:] if complements else inside,
        spacing=spacing,
        signed=True,
        valid=valid,
        missing="edge",
        dtype=dtype,
    )
    return torch.cat([-phi, phi], 1) if complements else phi


def _total(weight: Tensor | None, error: Tensor, phi: Tensor) -> Tensor:
    """Return the weight of all voxels of each sample, ``(batch, 1)``."""
    if weight is None:
        return error.new_full((error.shape[0], 1), phi[0, 0].numel())
    return weight.flatten(2).sum(-1, dtype=error.dtype)


def _given(distance_map: Tensor, input: Tensor, valid: Tensor | None) -> Tensor:
    """Return a checked distance map, zero where voxels do not count."""
    if not distance_map.is_floating_point():
        raise TypeError(f"distance_map must be floating point; got {distance_map.dtype}")
    if distance_map.shape != input.shape:
        rule = f"of the shape of input {tuple(input.shape)}"
        raise check.fail("distance_map", rule, f"shape {tuple(distance_map.shape)}")
    counted = distance_map.detach()
    counted = counted if valid is None else torch.where(valid, counted, 0.0)
    if can_look_at(counted):
        low, high = (float(bound) for bound in counted.aminmax())
        if not -torch.inf < low <= high < torch.inf:
            rule = "finite where voxels count (distance_transform has missing='edge')"
            raise check.fail("distance_map", rule, f"values {low} to {high}")
    return counted


class BoundaryLoss(ClassLoss):
    """Mean error of probabilities, each voxel weighed by its distance to the boundary, in mm.

    The module form of ``boundary_loss``, whose documentation gives the formula and each rule.

    Args:
        activation: What makes probabilities of the input; None if it holds them already.
        include_background: Whether channel 0 has a part in the loss, after the activation.
        ignore_index: Label of voxels that do not count, any integer. None counts all.
        class_weight: Weight of each channel, of which only ratios matter. None weighs all the
            same. Kept as a buffer.
        absent: What a class without target voxels adds: its probability times the distance to the
            edge of the image ("ratio"), times 1 ("penalize"), or nothing ("skip").
        reduction: Whether to return the weighted "mean", the "sum", or "none": each value.
        spacing: Distance in mm between neighbouring voxels along each spatial axis, or one number
            for all. None counts distances in voxels.

    Example:
        >>> import torch
        >>> loss = BoundaryLoss(activation="sigmoid", spacing=(3.0, 1.0, 1.0))
        >>> target = torch.zeros(1, 1, 4, 8, 8)
        >>> target[..., 1:3, 2:5, 2:5] = 1
        >>> print(f"{loss(20 * target - 10, target):.2f}, {loss(10 - 20 * target, target):.2f}")
        0.00, 2.85

    References:
        H. Kervadec et al., "Boundary loss for highly unbalanced segmentation", Medical Image
        Analysis 67, 2021, section 2; see ``boundary_loss``.
    """

    def __init__(
        self,
        *,
        activation: Activation | None = "softmax",
        include_background: bool = True,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | Tensor | None = None,
        absent: Absent = "ratio",
        reduction: Reduction = "mean",
        spacing: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__(
            activation=activation,
            include_background=include_background,
            ignore_index=ignore_index,
            class_weight=class_weight,
            reduction=reduction,
        )
        check.one_of("absent", absent, ABSENT)
        self.absent: Absent = absent
        self.spacing = spacing

    def forward(
        self,
        input: Float[Tensor, "batch channel *spatial"],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
        distance_map: Shaped[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """Return the loss.

        Args:
            input: Logits, or probabilities if ``activation`` is None.
            target: Class map, or values per channel.
            mask: Voxels that count, boolean or weights; None counts all.
            distance_map: Signed distance map of each channel; None makes it here.
        """
        return boundary_loss(
            input,
            target,
            mask=mask,
            distance_map=distance_map,
            activation=self.activation,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            class_weight=self.class_weight,
            absent=self.absent,
            reduction=self.reduction,
            spacing=self.spacing,
        )
