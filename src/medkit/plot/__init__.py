"""Pictures of volumes, predictions and training."""

from medkit.plot._history import history
from medkit.plot._overlay import overlay

__all__ = ["history", "overlay"]
