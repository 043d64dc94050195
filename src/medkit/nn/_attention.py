"""The attention of every block: heads split, one fused kernel, heads joined."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from medkit._core import check


def attend(
    query: Float[Tensor, "batch token channel"],
    key: Float[Tensor, "batch source channel"],
    value: Float[Tensor, "batch source channel"],
    *,
    num_heads: int,
    bias: Float[Tensor, "..."] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch token channel"]:
    """Return the values weighted by how much their keys agree with each query, head by head.

    Channels are split into heads of consecutive channels. ``bias`` is added to the logits and
    broadcasts to ``(batch, head, token, source)``; ``scale`` multiplies them, by default one over
    the root of the channels of a head.
    """
    query, key, value = (
        tokens.reshape(*tokens.shape[:2], num_heads, -1).transpose(1, 2)
        for tokens in (query, key, value)
    )
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
    return output.transpose(1, 2).flatten(2)


def check_heads(channels: int, num_heads: int) -> None:
    """Raise unless the channels can be split into heads."""
    check.integer("channels", channels, minimum=1)
    if channels % check.integer("num_heads", num_heads, minimum=1):
        raise check.fail("channels", f"divisible by num_heads={num_heads}", channels)
