"""Which arrays without a header of their own are volumes."""

from torch import Tensor

from medkit._core.file_errors import FormatError


def channels_first(data: Tensor, path: str, name: str) -> Tensor:
    """Return an array of two to four axes as (C, D, H, W)."""
    check_shape(tuple(data.shape), path, name)
    return data.reshape(*(1,) * (4 - data.ndim), *data.shape)


def check_shape(shape: tuple[int, ...], path: str, name: str) -> None:
    """Raise unless a stored array can be a volume."""
    if not 2 <= len(shape) <= 4 or 0 in shape:
        rule = "(H, W), (D, H, W) or (C, D, H, W) with voxels"
        raise FormatError(rule, path=path, field=name, value=f"shape {shape}")
