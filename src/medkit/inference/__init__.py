"""From a trained network to a prediction of a whole volume."""

__all__: list[str] = []
