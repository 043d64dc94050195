"""Losses on logits, each a function and a module with the same options."""

__all__: list[str] = []
