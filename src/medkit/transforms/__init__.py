"""Transforms of images, labels and their geometry."""

__all__: list[str] = []
