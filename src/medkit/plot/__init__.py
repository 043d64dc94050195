"""Pictures of volumes, predictions and training."""

__all__: list[str] = []
