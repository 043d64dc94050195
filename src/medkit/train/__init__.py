"""Small helpers for a training loop that stays yours."""

__all__: list[str] = []
