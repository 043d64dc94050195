"""How each public module is held to the laws; a public module without a case fails a test."""

import inspect
from functools import partial

import pytest
import torch
from torch import nn

import _torchvision_shim
import medkit.nn
from contract.block_cases import BLOCK_CASES
from medkit.nn import (
    CoordinateMLP,
    DeepSupervised,
    DropPath,
    FourierFeatures,
    HybridAttentionUNet,
    HybridUNet3D,
    KerasResNetV2,
    MixTransformer2D,
    MixTransformer3D,
    PatchEmbed2D,
    PatchEmbed3D,
    SegFormer2D,
    SegFormer3D,
    Sine,
    TimmUNet,
    UNet2D,
    UNet3D,
)
from medkit.testing import Report, module_report

Case = dict[str, object]

TINY = {
    "embed_dims": (8, 16, 24, 32),
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 2, 3, 4),
}
"""An encoder with one block a stage."""

VOLUME = (2, 2, 32, 33, 32)


def encoded_mlp(
    *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> CoordinateMLP:
    """Return a coordinate network on Fourier features."""
    encoding = FourierFeatures(3, num_frequencies=4, device=device, dtype=dtype)
    return CoordinateMLP(
        3, width=8, depth=2, encoding=encoding, dropout_after=(2,), device=device, dtype=dtype
    )


def deep_unet(
    *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> DeepSupervised:
    """Return a U-Net that gives the logits of two heads."""
    return DeepSupervised(
        UNet2D(2, 3, channels=(4, 6, 8), deep_supervision=1, device=device, dtype=dtype)
    )


CASES: dict[str, Case] = {
    "CoordinateMLP": {
        "factory": partial(CoordinateMLP, 3, width=8, depth=2, dropout_after=(2,)),
        "sample": (2, 3),
        "vary": {"activation": (nn.ReLU, Sine)},
    },
    "CoordinateMLP with Fourier features": {
        "factory": encoded_mlp,
        "sample": (2, 3),
    },
    "DeepSupervised": {
        "factory": deep_unet,
        "sample": (2, 2, 13, 16),
    },
    **BLOCK_CASES,
    "DropPath": {
        "factory": DropPath,
        "sample": (2, 3, 4, 4),
        "vary": {"rate": (0.0, 0.5)},
    },
    "FourierFeatures": {
        "factory": partial(FourierFeatures, 3, num_frequencies=4),
        "sample": (2, 3),
    },
    "HybridAttentionUNet": {
        "factory": partial(HybridAttentionUNet, 2, 3, base_channels=2),
        "sample": (2, 2, 16, 33),
        "vary": {"checkpoint": (False, True)},
    },
    "KerasResNetV2": {
        "factory": partial(KerasResNetV2, 2, 3, base_channels=2),
        "sample": (2, 2, 33, 40),
        "vary": {"hidden_dim": (None, 4), "dropout": (0.0, 0.5)},
    },
    "MixTransformer2D": {
        "factory": partial(MixTransformer2D, 2, **TINY),
        "sample": (2, 2, 33, 40),
    },
    "PatchEmbed2D": {
        "factory": partial(PatchEmbed2D, 2, 6),
        "sample": (2, 2, 9, 8),
        "vary": {"kernel_size": (7, 3), "stride": (4, 2)},
    },
    "HybridUNet3D": {
        "factory": partial(HybridUNet3D, 2, 3, base_channels=2),
        "sample": (2, 2, 17, 18, 17),  # oneDNN fails in bfloat16 where an axis is down to one
        "vary": {"checkpoint": (False, True)},
    },
    "MixTransformer3D": {
        "factory": partial(MixTransformer3D, 2, **TINY),
        "sample": VOLUME,
    },
    "PatchEmbed3D": {
        "factory": partial(PatchEmbed3D, 2, 6),
        "sample": (2, 2, 9, 8, 10),
        "vary": {"kernel_size": (7, 3), "stride": (4, 2)},
    },
    "SegFormer2D": {
        "factory": partial(SegFormer2D, 2, 3, **TINY, decoder_dim=16),
        "sample": (2, 2, 32, 37),
        "vary": {"profile": ("segformer3d", "medicai")},
    },
    "SegFormer3D": {
        "factory": partial(SegFormer3D, 2, 3, **TINY, decoder_dim=16),
        "sample": VOLUME,
        "vary": {"profile": ("segformer3d", "medicai")},
    },
    "SegFormer3D with checkpoints": {
        "factory": partial(SegFormer3D, 2, 3, **TINY, decoder_dim=16, checkpoint=True),
        "sample": VOLUME,
    },
    "Sine": {
        "factory": Sine,
        "sample": (2, 3),
    },
    "TimmUNet": {
        "factory": partial(
            TimmUNet,
            2,
            3,
            backbone="test_resnet",
            decoder_channels=(2, 3, 4),
            out_indices=(0, 1, 2),
        ),
        "sample": (2, 2, 32, 37),
    },
    "UNet2D": {
        "factory": partial(UNet2D, 2, 3, channels=(4, 6, 8)),
        "sample": (2, 2, 13, 16),
        "vary": {"residual": (False, True), "checkpoint": (False, True)},
    },
    "UNet3D": {
        "factory": partial(UNet3D, 2, 3, channels=(4, 6, 8)),
        "sample": (2, 2, 8, 9, 7),
        "vary": {"residual": (False, True), "norm": (None, partial(nn.GroupNorm, 2))},
    },
}


NEEDS = {"TimmUNet": "timm"}
"""Optional packages of the cases."""


def without_a_case() -> list[str]:
    """Return the public modules that no law is tried on."""
    return [
        name
        for name in medkit.nn.__all__
        if inspect.isclass(thing := getattr(medkit.nn, name))
        and issubclass(thing, nn.Module)
        and not any(name == case.partition(" ")[0] for case in CASES)
    ]


def report(name: str, law: str) -> Report:
    """Hold a public module to one law, in all settings of its case."""
    _skip_without_its_package(name)
    return module_report(laws=[law], **CASES[name])


def report_once(name: str, law: str) -> Report:
    """Hold a public module to one law, in the default setting: tracing takes seconds."""
    _skip_without_its_package(name)
    return module_report(laws=[law], **{**CASES[name], "vary": {}})


def _skip_without_its_package(name: str) -> None:
    if name in NEEDS:
        _torchvision_shim.install()
        pytest.importorskip(NEEDS[name])
