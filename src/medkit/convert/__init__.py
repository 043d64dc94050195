"""Weights in and out of other libraries."""

__all__: list[str] = []
