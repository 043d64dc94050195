"""The decoder equals its definition: embed, resize, concatenate, fuse, normalise, predict."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medkit.nn._batch_norm import make_batch_norm
from medkit.nn._mix_transformer import Pyramid
from medkit.nn._segformer_decoder import LinearEmbed, SegFormerDecoder
from medkit.nn._segformer_profile import numerics
from medkit.testing import assert_close

CHANNELS = (8, 16, 20, 32)
GRIDS = ((9, 8, 10), (5, 4, 5), (3, 2, 3), (2, 1, 2))


def decoder(dim: int, *, spatial_dims: int = 3) -> SegFormerDecoder:
    norm = make_batch_norm(
        dim, spatial_dims=spatial_dims, numerics=numerics("segformer3d"), dtype=torch.float64
    )
    part = SegFormerDecoder(
        CHANNELS,
        dim,
        3,
        spatial_dims=spatial_dims,
        norm_eps=1e-5,
        batch_norm=norm,
        dropout=0.0,
        dtype=torch.float64,
    )
    for parameter in part.parameters():
        nn.init.normal_(parameter)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return part


def pyramid(*, spatial_dims: int = 3) -> Pyramid:
    return Pyramid(
        *(
            torch.randn(2, channels, *grid[:spatial_dims], dtype=torch.float64, requires_grad=True)
            for channels, grid in zip(CHANNELS, GRIDS, strict=True)
        )
    )


def by_definition(part: SegFormerDecoder, levels: Pyramid) -> Tensor:
    size = levels.c1.shape[2:]
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    embeds = (part.linear_c4, part.linear_c3, part.linear_c2, part.linear_c1)
    parts: list[Tensor] = []
    for embed, level in zip(embeds, reversed(levels), strict=True):
        tokens = F.linear(level.movedim(1, -1), embed.proj.weight, embed.proj.bias)
        tokens = F.layer_norm(tokens, tokens.shape[-1:], embed.bn.weight, embed.bn.bias)
        parts.append(F.interpolate(tokens.movedim(-1, 1), size=size, mode=mode))
    return part.linear_pred(part.linear_fuse(torch.cat(parts, dim=1)))


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dim", [64, 24, 8])  # wide enough to fold all levels, some, none
def test_equals_the_definition(dim: int, training: bool, spatial_dims: int) -> None:
    part = decoder(dim, spatial_dims=spatial_dims).train(training)
    twin, levels = copy.deepcopy(part), pyramid(spatial_dims=spatial_dims)

    y, expected = part(levels), by_definition(twin, levels)

    assert_close(y, expected, rtol=1e-9, atol=1e-9)
    for (name, found), other in zip(part.named_buffers(), twin.buffers(), strict=True):
        assert_close(found, other, message=name)
    weight = torch.randn_like(y)
    gradients, others = (
        torch.autograd.grad((value * weight).sum(), [*levels, *model.parameters()])
        for value, model in ((y, part), (expected, twin))
    )
    for a, b in zip(gradients, others, strict=True):
        assert_close(a, b, rtol=1e-8, atol=1e-9 * float(b.abs().max()) + 1e-12)


def test_hooks_on_the_fused_map_run() -> None:
    part, shapes = decoder(24).eval(), []
    part.linear_fuse[2].register_forward_hook(lambda *a: shapes.append(tuple(a[-1].shape)))

    part(pyramid())

    assert shapes == [(2, 24, *GRIDS[0])]


def embed_of(kind: str) -> LinearEmbed:
    embed = LinearEmbed(4, 16, norm_eps=1e-5, dtype=torch.float64)
    if kind == "all outputs alike":
        nn.init.constant_(embed.proj.weight, 0.3)
        nn.init.constant_(embed.proj.bias, 0.1)
    elif kind == "nearly alike":
        nn.init.normal_(embed.proj.weight, mean=10, std=1e-3)
    else:
        nn.init.normal_(embed.proj.weight)
        embed.proj.weight.data *= torch.tensor([1e3, 1, 1e-3, 1e-3])
    return embed


@pytest.mark.parametrize("kind", ["all outputs alike", "nearly alike", "badly conditioned"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_folding_is_stable(kind: str, dtype: torch.dtype) -> None:
    embed = embed_of(kind)
    x, weight = torch.randn(100, 4, dtype=torch.float64), torch.randn(5, 16, dtype=torch.float64)
    expected = (embed(x) @ weight.T).detach()

    found = embed.to(dtype).fused(x.to(dtype), weight.to(dtype)).detach()

    tolerance = {torch.float32: 1e-5, torch.float64: 1e-9}[dtype]
    assert_close(found.double(), expected, atol=tolerance * float(expected.abs().max()) + 1e-9)
