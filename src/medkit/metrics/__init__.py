"""Scores of predictions, each a function and an accumulator."""

__all__: list[str] = []
