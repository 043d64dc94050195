"""How each public module is held to the laws; a public module without a case fails a test."""

import inspect
from functools import partial

from torch import nn

import medkit.nn
from medkit.nn import DropPath, MixTransformer3D, PatchEmbed3D, SegFormer3D
from medkit.testing import Report, module_report

Case = dict[str, object]

TINY = {
    "embed_dims": (8, 16, 24, 32),
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 2, 3, 4),
}
"""An encoder with one block a stage."""

VOLUME = (2, 2, 32, 33, 32)

CASES: dict[str, Case] = {
    "DropPath": {
        "factory": DropPath,
        "sample": (2, 3, 4, 4),
        "vary": {"rate": (0.0, 0.5)},
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
    "SegFormer3D": {
        "factory": partial(SegFormer3D, 2, 3, **TINY, decoder_dim=16),
        "sample": VOLUME,
        "vary": {"profile": ("segformer3d", "medicai")},
    },
    "SegFormer3D with checkpoints": {
        "factory": partial(SegFormer3D, 2, 3, **TINY, decoder_dim=16, checkpoint=True),
        "sample": VOLUME,
    },
}


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
    return module_report(laws=[law], **CASES[name])


def report_once(name: str, law: str) -> Report:
    """Hold a public module to one law, in the default setting: tracing takes seconds."""
    return module_report(laws=[law], **{**CASES[name], "vary": {}})
