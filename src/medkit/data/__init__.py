"""Volumes, readers, writers, datasets and samplers."""

__all__: list[str] = []
