"""Two thresholds: where a structure surely is, and how far it reaches."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medkit._core import check

from ._components import Connectivity, connected_components


def hysteresis_threshold(
    scores: Float[Tensor, "batch channel *spatial"],
    *,
    low: float,
    high: float,
    connectivity: Connectivity,
) -> Bool[Tensor, "batch channel *spatial"]:
    """Keep the connected parts above ``low`` that hold at least one voxel above ``high``.

    Use it on probabilities of thin or long structures, such as vessels and surfaces: a single
    threshold breaks them where it is high and adds specks where it is low. The numbers are those
    of ``skimage.filters.apply_hysteresis_threshold``, which knows 4 and 6 neighbours only.

    Args:
        scores: Probabilities or other scores; two or three spatial axes. Each sample and channel
            is by itself. NaN is above nothing.
        low: Threshold of what belongs to a part.
        high: Threshold of what makes a part stay, not below ``low``. Both are exclusive.
        connectivity: How many neighbours of a voxel touch it, as in :func:`connected_components`.

    Raises:
        ValueError: If ``high`` is below ``low``, or ``connectivity`` is not for that many axes.

    Example:
        >>> import torch
        >>> p = torch.tensor([[[[0.4, 0.9, 0.4, 0.1, 0.4]]]])
        >>> hysteresis_threshold(p, low=0.35, high=0.85, connectivity=8)
        tensor([[[[ True,  True,  True, False, False]]]])

    References:
        J. Canny, "A Computational Approach to Edge Detection", IEEE Transactions on Pattern
        Analysis and Machine Intelligence 8, 1986, section VI.
    """
    if check.real("high", high) < check.real("low", low):
        raise check.fail("high", f"at least low, {low}", high)
    parts = connected_components(scores > low, connectivity=connectivity).cpu().numpy()
    sure = (scores > high).cpu().numpy()
    kept = np.empty(parts.shape, np.bool_)
    for place in np.ndindex(*parts.shape[:2]):
        stays = np.zeros(int(parts[place].max()) + 1, np.bool_)
        stays[parts[place][sure[place]]] = True
        kept[place] = stays[parts[place]]
    return torch.as_tensor(kept).to(scores.device)
