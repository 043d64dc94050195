"""Pictures of volumes, predictions and training."""

from ._history import history
from ._layers import layers
from ._mosaic import mosaic
from ._overlay import overlay
from ._scene import scene
from ._scores import confusion_matrix, reliability_diagram

__all__ = [
    "confusion_matrix",
    "history",
    "layers",
    "mosaic",
    "overlay",
    "reliability_diagram",
    "scene",
]
