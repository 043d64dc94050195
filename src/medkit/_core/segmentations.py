"""The two forms of a segmentation: a class map of integers, or boolean masks."""

import torch
from torch import Tensor


def check_segmentations(prediction: Tensor, target: Tensor) -> None:
    """Raise a ``TypeError`` unless both are class maps or both are boolean masks."""
    for name, segmentation in (("prediction", prediction), ("target", target)):
        if segmentation.is_floating_point() or segmentation.is_complex():
            raise TypeError(
                f"{name} must be a class map of integers or boolean masks, as from "
                f"logits.argmax(1) or logits > 0; got {segmentation.dtype}"
            )
    if (prediction.dtype == torch.bool) != (target.dtype == torch.bool):
        raise TypeError(
            "prediction and target must both be class maps or both be boolean masks; "
            f"got {prediction.dtype} and {target.dtype}"
        )
