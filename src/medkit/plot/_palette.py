"""Colours that stay apart for readers with colour-vision deficiency."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from medkit._core.optional import require

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

OKABE_ITO = ("#0072B2", "#D55E00", "#F0E442", "#56B4E9", "#CC79A7", "#E69F00", "#009E73")
"""Blue, vermilion, yellow, sky blue, purple, orange, green (Okabe and Ito, 2008).

Ordered so that the first ones stay furthest apart over grey for every kind of colour vision.
"""


def palette(count: int) -> Sequence[str]:
    """Return ``count`` colours: Okabe and Ito's, or steps of viridis where those run out."""
    if count <= len(OKABE_ITO):
        return OKABE_ITO[:count]
    matplotlib = require("matplotlib", extra="plot")
    to_hex = require("matplotlib.colors", extra="plot").to_hex
    viridis = cast("Colormap", matplotlib.colormaps["viridis"])
    return [to_hex(viridis(i / (count - 1))) for i in range(count)]
