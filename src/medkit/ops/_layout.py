"""Where the channel axis stands."""

from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check


def channels_first(
    input: Shaped[Tensor, "batch *spatial channel"],
) -> Shaped[Tensor, "batch channel *spatial"]:
    """View of a tensor with the channels moved from the end to behind the batch.

    Use it on arrays of TensorFlow, Keras or PIL, or after layers that work along the last axis.

    Args:
        input: Channels last, with any number of spatial axes.

    Returns:
        A view of the same memory; in two and three dimensions it has the memory format that
        PyTorch calls ``channels_last``, which convolutions take as it is.

    Raises:
        ValueError: If there are fewer than two axes.

    Example:
        >>> import torch
        >>> channels_first(torch.zeros(2, 32, 48, 3)).shape
        torch.Size([2, 3, 32, 48])
    """
    _check_axes(input)
    return input.movedim(-1, 1)


def channels_last(
    input: Shaped[Tensor, "batch channel *spatial"],
) -> Shaped[Tensor, "batch *spatial channel"]:
    """View of a tensor with the channels moved from behind the batch to the end.

    Use it before layers and programs that work along the last axis; :func:`channels_first` is the
    way back.

    Args:
        input: Channels first, with any number of spatial axes.

    Returns:
        A view of the same memory.

    Raises:
        ValueError: If there are fewer than two axes.

    Example:
        >>> import torch
        >>> channels_last(torch.zeros(2, 3, 32, 48)).shape
        torch.Size([2, 32, 48, 3])
    """
    _check_axes(input)
    return input.movedim(1, -1)


def _check_axes(input: Tensor) -> None:
    if input.ndim < 2:
        raise check.fail("input", "of at least two axes", f"shape {tuple(input.shape)}")
