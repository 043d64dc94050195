"""Pure functions on tensors: no module, no state, no files."""

__all__: list[str] = []
