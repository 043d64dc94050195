"""How each block is held to the laws of modules: images and volumes alike."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import medkit.nn
from medkit.nn import DropPath

Case = dict[str, object]
Factory = Callable[..., nn.Module]

SIZES = {2: (5, 6), 3: (3, 4, 5)}
CHANNELS = 8


def _gate_inputs(dims: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    coarse = tuple(size // 2 for size in SIZES[dims])
    return (
        torch.randn(2, CHANNELS, *SIZES[dims], generator=generator, dtype=torch.float64),
        torch.randn(2, 6, *coarse, generator=generator, dtype=torch.float64),
    )


def _cases(dims: int) -> dict[str, Case]:
    def block(name: str, *args: int, **options: object) -> Factory:
        return partial(getattr(medkit.nn, f"{name}{dims}D"), *args, **options)

    shape = (2, CHANNELS, *SIZES[dims])
    bottleneck = {"stride": (1, 2), "kernel_size": (3, 5), "drop": (nn.Identity, DropPath)}
    cases: dict[str, Case] = {
        "MBConv": {
            "factory": block("MBConv", CHANNELS, CHANNELS),
            "vary": {**bottleneck, "expand_ratio": (6, 1), "squeeze_ratio": (0.25, 0.0)},
        },
        "FusedMBConv": {
            "factory": block("FusedMBConv", CHANNELS, CHANNELS),
            "vary": {
                **bottleneck,
                # PyTorch 2.13 leaves values unset in the bfloat16 gradient of a 3D kernel that is
                # larger than the image
                "kernel_size": (3, 5) if dims == 2 else (3, 1),
                "expand_ratio": (4, 1),
                "squeeze_ratio": (0.0, 0.25),
            },
        },
        "DepthwiseSeparableConv": {
            "factory": block("DepthwiseSeparableConv", CHANNELS, CHANNELS),
            "vary": bottleneck,
        },
        "SqueezeExcite": {"factory": block("SqueezeExcite", CHANNELS, reduced_channels=3)},
        "EfficientChannelAttention": {"factory": block("EfficientChannelAttention", CHANNELS)},
        "CBAM": {
            "factory": block("CBAM", CHANNELS, reduced_channels=3),
            "vary": {"kernel_size": (7, 3)},
        },
        "ShuffleAttention": {"factory": block("ShuffleAttention", CHANNELS, groups=2)},
        "MultiHeadSelfAttention": {
            "factory": block("MultiHeadSelfAttention", CHANNELS, num_heads=2),
            "vary": {"qkv_bias": (True, False)},
        },
        "WindowAttention": {
            "factory": block("WindowAttention", CHANNELS, num_heads=2),
            "vary": {"window_size": (3, 2), "shift_size": (0, 1)},
        },
        "AxialAttention": {
            "factory": block("AxialAttention", CHANNELS, num_heads=2),
            "vary": {"combine": ("sequence", "sum")},
        },
        "SpatialReductionAttention": {
            "factory": block("SpatialReductionAttention", CHANNELS, num_heads=2),
            "vary": {"sr_ratio": (2, 1)},
        },
        "AttentionGate": {
            "factory": block("AttentionGate", CHANNELS, 6),
            "sample": partial(_gate_inputs, dims),
        },
        "HybridEncoderBlock": {
            "factory": block("HybridEncoderBlock", 4, CHANNELS, num_heads=2),
            "sample": (2, 4, *SIZES[dims]),
            "vary": {
                "transformer": (None, "full", "window", "axial", "reduced"),
                "shuffle_groups": (None, 2),
                "drop": (nn.Identity, partial(DropPath, 0.2)),
            },
        },
    }
    return {f"{name}{dims}D": {"sample": shape, **case} for name, case in cases.items()}


BLOCK_CASES: dict[str, Case] = {**_cases(2), **_cases(3)}
