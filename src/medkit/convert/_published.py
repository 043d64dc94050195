"""Checkpoints of the programs that published a network whose names ours keep."""

import os
import re
from collections.abc import Mapping
from itertools import pairwise

from torch import Tensor, nn

from medkit._core import check
from medkit.nn import CoordinateMLP, HybridAttentionUNet, SegFormer3D

from ._torch_file import read_checkpoint
from ._weights_error import WeightsError, WeightsReport

_PROFILES = ("segformer3d", "segformer3d_published")


def load_published_weights(module: nn.Module, path: str | os.PathLike[str]) -> WeightsReport:
    """Fill a network with a checkpoint of the program that published it, all of it, or raise.

    Our networks keep the published tensor names, so every tensor of the file must have its
    counterpart of the same shape, and nothing changes in the module before that is known. The
    checkpoint may be a ``state_dict``, or hold one beside other things as ``model_state_dict``,
    ``state_dict`` or ``model``; the prefixes of ``DistributedDataParallel`` and ``torch.compile``
    are taken off. It is read as tensors and plain values: a file that needs more, such as a
    pickled module or NumPy array, is refused, and no code in it runs.

    =======================  ============================================================
    module                   program
    =======================  ============================================================
    ``SegFormer3D``          SegFormer3D (OSUPCVLab): with ``profile`` "segformer3d", or
                             "segformer3d_published" if trained with the release of
                             April 2024, whose attention is scaled otherwise; the file
                             does not say which
    ``HybridAttentionUNet``  layers of the retina, at ``base_channels`` 32 or 64; its
                             edges were Canny's, see there
    ``CoordinateMLP``        cardioscar, in its earlier (``dropout_after=(2, 4)``) or its
                             later layout (``dropout_after=(3,)``)
    =======================  ============================================================

    Args:
        module: Receives the weights, on whatever device and in whatever precision it is.
        path: The file.

    Returns:
        What was loaded, and the names of what the file holds besides.

    Raises:
        WeightsError: If a tensor is missing, left over, or of another shape or type.
        DataError: If the file is damaged, or holds more than tensors and plain values.
        TypeError: If no program published the module.
        ValueError: If a SegFormer3D has the profile of another program.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile, torch
        >>> from medkit.nn import CoordinateMLP
        >>> state = {f"module.{name}": t for name, t in CoordinateMLP().state_dict().items()}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"epoch": 3, "model_state_dict": state}, f"{folder}/best.pth")
        ...     report = load_published_weights(CoordinateMLP(), f"{folder}/best.pth")
        >>> len(report.loaded), report.skipped
        (10, ('epoch',))
    """
    if not isinstance(module, SegFormer3D | HybridAttentionUNet | CoordinateMLP):
        raise TypeError(
            "module must be a SegFormer3D, HybridAttentionUNet or CoordinateMLP; "
            f"got {type(module)}"
        )
    if isinstance(module, SegFormer3D) and module.profile not in _PROFILES:
        raise check.fail("module.profile", f"one of {_PROFILES}", repr(module.profile))
    found, others = read_checkpoint(path)
    own = module.state_dict()
    misshapen = [
        f"{name}: {tuple(found[name].shape)} {found[name].dtype} in the file, "
        f"{tuple(tensor.shape)} in the module"
        for name, tensor in own.items()
        if name in found and not _fits(found[name], tensor)
    ]
    if found.keys() != own.keys() or misshapen:
        raise WeightsError(
            type(module).__name__,
            path=os.fspath(path),
            missing=[name for name in own if name not in found],
            unexpected=[name for name in found if name not in own],
            misshapen=misshapen,
            remedy=_other_layout(found) if isinstance(module, CoordinateMLP) else "",
        )
    module.load_state_dict(found)
    return WeightsReport(tuple(own), others)


def _fits(found: Tensor, own: Tensor) -> bool:
    same_kind = found.is_floating_point() == own.is_floating_point() and not found.is_complex()
    return same_kind and found.shape == own.shape and found.layout == own.layout


def _other_layout(found: Mapping[str, Tensor]) -> str:
    """Say where dropout stands in a coordinate network, which the numbers of its layers tell."""
    matches = (re.fullmatch(r"network\.(\d+)\.weight", name) for name in found)
    numbers = sorted(int(match[1]) for match in matches if match)
    gaps = [after - before for before, after in pairwise(numbers)]
    if not gaps or not set(gaps) <= {2, 3}:
        return ""
    after = tuple(layer for layer, gap in enumerate(gaps, 1) if gap == 3)
    return f"Its layers are those of CoordinateMLP(depth={len(gaps)}, dropout_after={after})"
