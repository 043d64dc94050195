"""How each public module is held to the laws; a public module without a case fails a test."""

import inspect
from functools import partial

from torch import nn

import medkit.nn
from medkit.nn import DropPath, SegFormer3D
from medkit.testing import Report, module_report

Case = dict[str, object]

TINY = {
    "embed_dims": (8, 16, 24, 32),
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 2, 3, 4),
    "decoder_dim": 16,
}
"""A SegFormer with one block a stage."""

CASES: dict[str, Case] = {
    "DropPath": {
        "factory": DropPath,
        "sample": (2, 3, 4, 4),
        "vary": {"rate": (0.0, 0.5)},
    },
    "SegFormer3D": {
        "factory": partial(SegFormer3D, 2, 3, **TINY),
        "sample": (2, 2, 32, 33, 40),
        "vary": {"profile": ("segformer3d", "segformer3d_published", "medicai")},
    },
    "SegFormer3D with checkpoints": {
        "factory": partial(SegFormer3D, 2, 3, **TINY, checkpoint=True),
        "sample": (2, 2, 32, 33, 40),
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
