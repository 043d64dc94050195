"""Channels first and channels last, under the names by which the networks know them.

Inside the transformers a map is ``(batch, *grid, channel)``: linear layers and norms read it as
it is, and its channels-first view is what PyTorch calls ``channels_last`` memory, which the
convolutions take without a copy.
"""

from medkit.ops import channels_first, channels_last

__all__ = ["channels_first", "channels_last"]
