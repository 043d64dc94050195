"""What tells one SegFormer from another: sizes (variants) and numerics (profiles)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from medkit._core import check

Variant = Literal["b0", "b1", "b2", "b3", "b4", "b5"]
Profile = Literal["segformer3d", "segformer3d_published", "medicai"]

PerStage = tuple[int, int, int, int]


class StageSizes(NamedTuple):
    """Sizes of the four encoder stages, finest first."""

    embed_dims: PerStage
    depths: PerStage
    num_heads: PerStage
    sr_ratios: PerStage
    mlp_ratios: PerStage


class Numerics(NamedTuple):
    """Everything that changes the numbers and not the shapes of the weights."""

    scale_by: Literal["head_dim", "num_heads"]
    gelu: Literal["none", "tanh"]
    block_norm_eps: float
    norm_eps: float
    batch_norm_eps: float
    batch_norm_momentum: float
    biased_running_var: bool
    drop_path_rate: float
    init: Literal["segformer3d", "glorot"]


_DEPTHS: dict[Variant, PerStage] = {
    "b0": (2, 2, 2, 2),
    "b1": (2, 2, 2, 2),
    "b2": (3, 4, 6, 3),
    "b3": (3, 4, 18, 3),
    "b4": (3, 8, 27, 3),
    "b5": (3, 6, 40, 3),
}

_SR_RATIOS: dict[int, PerStage] = {2: (8, 4, 2, 1), 3: (4, 2, 1, 1)}

_SEGFORMER3D = Numerics(
    scale_by="head_dim",
    gelu="none",
    block_norm_eps=1e-5,
    norm_eps=1e-5,
    batch_norm_eps=1e-5,
    batch_norm_momentum=0.1,
    biased_running_var=False,
    drop_path_rate=0.0,
    init="segformer3d",
)

_NUMERICS: dict[Profile, Numerics] = {
    "segformer3d": _SEGFORMER3D,
    "segformer3d_published": _SEGFORMER3D._replace(scale_by="num_heads"),
    "medicai": Numerics(
        scale_by="head_dim",
        gelu="tanh",
        block_norm_eps=1e-6,
        norm_eps=1e-5,
        batch_norm_eps=1e-3,
        batch_norm_momentum=0.01,
        biased_running_var=True,
        drop_path_rate=0.1,
        init="glorot",
    ),
}


def stage_sizes(
    variant: Variant,
    *,
    spatial_dims: int,
    embed_dims: Sequence[int] | None,
    depths: Sequence[int] | None,
    num_heads: Sequence[int] | None,
    sr_ratios: Sequence[int] | None,
    mlp_ratios: Sequence[int] | None,
) -> StageSizes:
    """Return the sizes of a variant with the arguments that were given in place of its own."""
    check.one_of("variant", variant, tuple(_DEPTHS))
    own_dims = (32, 64, 160, 256) if variant == "b0" else (64, 128, 320, 512)
    sizes = StageSizes(
        embed_dims=_per_stage("embed_dims", embed_dims, own_dims),
        depths=_per_stage("depths", depths, _DEPTHS[variant]),
        num_heads=_per_stage("num_heads", num_heads, (1, 2, 5, 8)),
        sr_ratios=_per_stage("sr_ratios", sr_ratios, _SR_RATIOS[spatial_dims]),
        mlp_ratios=_per_stage("mlp_ratios", mlp_ratios, (4, 4, 4, 4)),
    )
    for stage, (width, heads) in enumerate(zip(sizes.embed_dims, sizes.num_heads, strict=True)):
        if width % heads:
            rule = f"divisible by num_heads[{stage}]={heads}"
            raise check.fail(f"embed_dims[{stage}]", rule, width)
    return sizes


def numerics(
    profile: Profile, *, norm_eps: float | None = None, drop_path_rate: float | None = None
) -> Numerics:
    """Return the numerics of a profile with the arguments that were given in place of its own."""
    check.one_of("profile", profile, tuple(_NUMERICS))
    own = _NUMERICS[profile]
    if norm_eps is not None:
        own = own._replace(block_norm_eps=check.positive("norm_eps", norm_eps))
    if drop_path_rate is not None:
        rate = check.fraction("drop_path_rate", drop_path_rate, below_one=True)
        own = own._replace(drop_path_rate=rate)
    return own


def _per_stage(name: str, given: Sequence[int] | None, own: PerStage) -> PerStage:
    if given is None:
        return own
    if len(given) != 4:
        raise check.fail(name, "four numbers, one per stage", tuple(given))
    first, second, third, fourth = (
        check.integer(f"{name}[{stage}]", number, minimum=1) for stage, number in enumerate(given)
    )
    return first, second, third, fourth
