"""Pictures of volumes, predictions and training."""

from medkit.plot._history import history
from medkit.plot._layers import layers
from medkit.plot._mosaic import mosaic
from medkit.plot._overlay import overlay
from medkit.plot._scene import scene
from medkit.plot._scores import confusion_matrix, reliability_diagram

__all__ = [
    "confusion_matrix",
    "history",
    "layers",
    "mosaic",
    "overlay",
    "reliability_diagram",
    "scene",
]
