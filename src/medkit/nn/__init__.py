"""Networks and their blocks, 2D and 3D."""

__all__: list[str] = []
