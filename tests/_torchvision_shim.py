"""Lets torchvision's CUDA build import beside a CPU-only torch, for tests that run a peer.

The package index serves torchvision for CUDA only. Its Python half registers kernels for the
operators of its compiled half, which cannot load without CUDA; declaring operators of those names
first is enough for the import. Nothing calls the operators themselves: their schemas are bare.
"""

import torch

_OPERATORS = [
    "nms",
    "qnms",
    "qroi_align",
    *(
        f"{prefix}{name}{suffix}"
        for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
        for prefix, suffix in (("", ""), ("_", "_backward"))
    ),
]
_library: list[torch.library.Library] = []


def install() -> None:
    """Declare the operators once; call before importing timm or torchmetrics."""
    if _library or torch.cuda.is_available():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        library.define(f"{name}(Tensor input) -> Tensor")
    _library.append(library)
