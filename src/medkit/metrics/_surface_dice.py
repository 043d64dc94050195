"""Surface Dice: the share of two surfaces that lies within a tolerance of the other."""

from collections.abc import Iterable, Sequence

from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check

from ._accumulator import Options
from ._scores import Scores
from ._surface import Surface, SurfaceDistances
from ._surface_case import Spacing, SurfaceScore, score_surfaces


def surface_dice(
    prediction: Shaped[Tensor, "batch ..."],
    target: Shaped[Tensor, "batch ..."],
    *,
    tolerance: float | Sequence[float],
    num_classes: int | None = None,
    include_background: bool = True,
    ignore_index: int | None = None,
    mask: Shaped[Tensor, "batch ..."] | None = None,
    spacing: Spacing = None,
    surface: Surface = "surfel",
) -> Scores:
    r"""Return the share of two surfaces that lies within a tolerance of the other.

    .. math:: S_\tau = \frac{|\{a \in \partial P : d(a, \partial T) \le \tau\}|
                            + |\{b \in \partial T : d(b, \partial P) \le \tau\}|}
                           {|\partial P| + |\partial T|}

    measured in area ("surfel", as DeepMind's, exact for any spacing) or in edge voxels ("voxel",
    as MONAI's by default). Use it where a contour has to be right to within what experts differ
    by: unlike Dice it does not forgive a large organ its errors.

    A structure missed or invented has 0; where both are empty the value is NaN.

    Args:
        prediction: Class map ``(batch, *spatial)`` or ``(batch, 1, *spatial)`` of integers, or
            boolean masks ``(batch, channel, *spatial)``; two or three spatial axes.
        target: Truth in the form of ``prediction``.
        tolerance: Distance in mm up to which surfaces agree: one number, or one for each class,
            the background's included.
        num_classes: Number of classes of the maps; None for masks.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that belong to no structure, whatever is predicted
            there; for class maps only. None counts all.
        mask: Voxels that count, boolean; others belong to no structure. None counts all.
        spacing: Edges of a voxel in mm, one per axis or one for all. None is 1.
        surface: Count the area of "surfels", or edge voxels ("voxel").

    Returns:
        Values and statuses per case and class.

    Raises:
        TypeError: If a segmentation is neither of integers nor of booleans.
        ValueError: If shapes differ, a label is no class or an option is out of range.

    Example:
        >>> import torch
        >>> truth, prediction = torch.zeros(2, 1, 1, 8, 8, dtype=torch.bool)
        >>> truth[..., 2:5, 2:5], prediction[..., 2:5, 2:7] = True, True
        >>> for tolerance in (0, 1, 2):
        ...     scores = surface_dice(prediction, truth, tolerance=tolerance, surface="voxel")
        ...     print(f"{scores.values.item():.3f}")
        0.700
        0.850
        1.000

    References:
        S. Nikolov et al., "Clinically Applicable Segmentation of Head and Neck Anatomy for
        Radiotherapy: Deep Learning Algorithm Development and Validation Study", Journal of Medical
        Internet Research 23, 2021, section "Performance Metrics".
    """
    limits = _limits(tolerance)

    def formula(distances: SurfaceDistances, column: int) -> float:
        if isinstance(limits, tuple) and column >= len(limits):
            raise check.fail("tolerance", "one number for each class", f"{len(limits)} of them")
        there, back, there_sizes, back_sizes = distances
        limit = limits[column] if isinstance(limits, tuple) else limits
        agreed = there_sizes[there <= limit].sum() + back_sizes[back <= limit].sum()
        return float(agreed / (there_sizes.sum() + back_sizes.sum()))

    return score_surfaces(
        prediction,
        target,
        formula,
        num_classes=num_classes,
        include_background=include_background,
        ignore_index=ignore_index,
        mask=mask,
        spacing=spacing,
        surface=surface,
        worst=0.0,
        limit=max(limits, default=0.0) if isinstance(limits, tuple) else limits,
    )


def _limits(tolerance: float | Sequence[float]) -> float | tuple[float, ...]:
    """Return the tolerance of all classes, or of each."""
    if isinstance(tolerance, Iterable):
        return tuple(check.non_negative("tolerance", each) for each in tolerance)
    return check.non_negative("tolerance", tolerance)


class SurfaceDice(SurfaceScore):
    """Surface Dice over any number of batches.

    It keeps one value and one status per case and class, so that results are the same bit for bit
    however cases are batched or split over processes.

    Args:
        num_classes: Number of classes of class maps; None for boolean masks.
        tolerance: Distance in mm up to which surfaces agree: one number, or one for each class.
        include_background: Whether class 0 is scored.
        ignore_index: Label of target voxels that belong to no structure.
        spacing: Edges of a voxel in mm, where ``update`` names none.
        surface: What is counted: the area of "surfels", or edge voxels ("voxel").

    Example:
        >>> import torch
        >>> metric = SurfaceDice(2, tolerance=1.0, include_background=False)
        >>> truth = torch.zeros(1, 8, 8, dtype=torch.int64)
        >>> truth[:, 2:5, 2:5] = 1
        >>> metric.update(truth.roll(1, dims=1), truth)
        >>> metric.compute().mean()
        1.0

    References:
        S. Nikolov et al., "Clinically Applicable Segmentation of Head and Neck Anatomy for
        Radiotherapy", Journal of Medical Internet Research 23, 2021; see ``surface_dice``.
    """

    perfect: float = 1.0

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        tolerance: float | Sequence[float],
        include_background: bool = True,
        ignore_index: int | None = None,
        spacing: Spacing = None,
        surface: Surface = "surfel",
    ) -> None:
        super().__init__(
            num_classes,
            include_background=include_background,
            ignore_index=ignore_index,
            spacing=spacing,
            surface=surface,
        )
        self.tolerance: float | tuple[float, ...] = _limits(tolerance)

    def score(
        self,
        prediction: Shaped[Tensor, "batch ..."],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None,
        spacing: Spacing,
    ) -> Scores:
        """Return the scores of a batch of cases, which are not kept.

        Args:
            prediction: Class map or boolean masks.
            target: Truth in the form of ``prediction``.
            mask: Voxels that count; None counts all.
            spacing: Edges of a voxel in mm.
        """
        return surface_dice(
            prediction,
            target,
            num_classes=self.num_classes,
            include_background=self.include_background,
            ignore_index=self.ignore_index,
            mask=mask,
            spacing=spacing,
            surface=self.surface,
            tolerance=self.tolerance,
        )

    @property
    def options(self) -> Options:
        """What the accumulator was made with, by name."""
        return {**super().options, "tolerance": self.tolerance}
