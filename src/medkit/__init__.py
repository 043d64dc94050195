"""Parts for medical-image deep learning on PyTorch, each equal to a named reference.

Subpackages load when they are first used, so ``import medkit`` costs nothing:

>>> import medkit
>>> medkit.losses.DiceLoss.__name__
'DiceLoss'
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medkit import (
        convert,
        data,
        inference,
        losses,
        metrics,
        nn,
        ops,
        plot,
        testing,
        train,
        transforms,
    )

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "convert",
    "data",
    "inference",
    "losses",
    "metrics",
    "nn",
    "ops",
    "plot",
    "testing",
    "train",
    "transforms",
]


def __getattr__(name: str) -> ModuleType:
    """Import a subpackage the first time it is named (PEP 562)."""
    if name in __all__:
        return importlib.import_module(f"medkit.{name}")
    raise AttributeError(f"module 'medkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return __all__
