"""Losses of other libraries in medkit's vocabulary, so that the laws can be tried on them.

An adapter renames options and brings the target into the shape its library asks for. It offers
only what the library offers, and mends nothing.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Reduction = Literal["mean", "sum", "none"]


def with_channel(input: Tensor, target: Tensor) -> Tensor:
    """Return a class map with its channel axis, which MONAI asks for."""
    return target[:, None] if target.ndim == input.ndim - 1 else target


def is_class_map(input: Tensor, target: Tensor) -> bool:
    """Return whether a target holds labels, to be made one-hot."""
    return target.shape[1] == 1 and input.shape[1] > 1


class MonaiDice(nn.Module):
    def __init__(
        self,
        *,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        include_background: bool = True,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | None = None,
        batch: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if class_weight is not None and not include_background:
            class_weight = class_weight[1:]
        self.options = {
            activation: True,
            "include_background": include_background,
            "ignore_index": ignore_index,
            "weight": class_weight,
            "batch": batch,
            "reduction": reduction,
        }

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from monai.losses import DiceLoss

        target = with_channel(input, target)
        return DiceLoss(to_onehot_y=is_class_map(input, target), **self.options)(input, target)


class MonaiMaskedDice(nn.Module):
    """MONAI's generic wrapper around its Dice loss; `MaskedDiceLoss` is another class."""

    def __init__(
        self,
        *,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        batch: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.options = {activation: True, "batch": batch, "reduction": reduction}

    def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        from monai.losses import DiceLoss, MaskedLoss

        target = with_channel(input, target)
        loss = DiceLoss(to_onehot_y=is_class_map(input, target), **self.options)
        return loss(input, target) if mask is None else MaskedLoss(loss)(input, target, mask)


class MonaiGeneralizedDice(nn.Module):
    def __init__(
        self,
        *,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        include_background: bool = True,
        batch: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.options = {
            activation: True,
            "include_background": include_background,
            "batch": batch,
            "reduction": reduction,
        }

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from monai.losses import GeneralizedDiceLoss

        target = with_channel(input, target)
        to_onehot_y = is_class_map(input, target)
        return GeneralizedDiceLoss(to_onehot_y=to_onehot_y, **self.options)(input, target)


class MonaiDiceCE(nn.Module):
    def __init__(
        self,
        *,
        activation: Literal["softmax"] = "softmax",
        include_background: bool = True,
        class_weight: Sequence[float] | None = None,
        batch: bool = False,
    ) -> None:
        super().__init__()
        self.class_weight = class_weight
        self.options = {activation: True, "include_background": include_background, "batch": batch}

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from monai.losses import DiceCELoss

        target = with_channel(input, target)
        weight = None if self.class_weight is None else input.new_tensor(self.class_weight)
        loss = DiceCELoss(to_onehot_y=is_class_map(input, target), weight=weight, **self.options)
        return loss(input, target)


class MonaiFocal(nn.Module):
    def __init__(
        self,
        *,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        include_background: bool = True,
        ignore_index: int | None = None,
        class_weight: Sequence[float] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if class_weight is not None and not include_background:
            class_weight = class_weight[1:]
        self.options = {
            "use_softmax": activation == "softmax",
            "include_background": include_background,
            "ignore_index": ignore_index,
            "weight": class_weight,
            "reduction": reduction,
        }

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from monai.losses import FocalLoss

        target = with_channel(input, target)
        return FocalLoss(to_onehot_y=is_class_map(input, target), **self.options)(input, target)


class MonaiUnifiedFocal(nn.Module):
    """Two classes; its documentation asks for logits."""

    def __init__(self, *, activation: Literal["softmax"] = "softmax") -> None:
        super().__init__()
        self.activation = activation

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from monai.losses import AsymmetricUnifiedFocalLoss

        return AsymmetricUnifiedFocalLoss(to_onehot_y=True)(input, with_channel(input, target))


class MonaiHausdorff(nn.Module):
    """One channel."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from monai.losses import HausdorffDTLoss

        loss = HausdorffDTLoss(sigmoid=True, include_background=True)
        return loss(input, with_channel(input, target).to(input.dtype))


class MonaiBoundary(nn.Module):
    """One channel."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from monai.losses import BoundaryLoss

        loss = BoundaryLoss(sigmoid=True, include_background=True)
        return loss(input, with_channel(input, target).to(input.dtype))


class MonaiDeepSupervision(nn.Module):
    """Two heads of one network, the second at half the size."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from monai.losses import DeepSupervisionLoss, DiceLoss

        heads = [input, nn.functional.avg_pool3d(input, 2)]
        loss = DeepSupervisionLoss(DiceLoss(softmax=True, to_onehot_y=True))
        return loss(heads, with_channel(input, target))


class MonaiCoarseHead(nn.Module):
    """One head at half the size; MONAI brings the target to it."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from monai.losses import DeepSupervisionLoss, DiceLoss

        head = nn.functional.avg_pool3d(input, 2)
        target = with_channel(input, target).to(input.dtype)
        return DeepSupervisionLoss(DiceLoss(softmax=True, to_onehot_y=True))([head], target)


class MonaiClDice(nn.Module):
    """One channel."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from monai.losses import SoftclDiceLoss

        loss = SoftclDiceLoss(iter_=1, sigmoid=True)
        return loss(input, with_channel(input, target).to(input.dtype))


class NnunetDeepSupervision(nn.Module):
    """Two heads with the weights that the wrapper has by default."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

        loss = DeepSupervisionWrapper(nn.functional.cross_entropy)
        return loss([input, input], [target, target])


class SmpOverlap(nn.Module):
    def __init__(self, *, kind: Literal["TverskyLoss", "JaccardLoss"] = "TverskyLoss") -> None:
        super().__init__()
        self.kind = kind

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from segmentation_models_pytorch import losses

        return getattr(losses, self.kind)("multiclass")(input, target)


class SmpDice(nn.Module):
    def __init__(
        self,
        *,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.multilabel = activation == "sigmoid"
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from segmentation_models_pytorch.losses import DiceLoss

        if self.multilabel and target.ndim == input.ndim - 1:
            target = (target[:, None] == torch.arange(input.shape[1])[:, None, None]).long()
        mode = "multilabel" if self.multilabel else "multiclass"
        return DiceLoss(mode, ignore_index=self.ignore_index)(input, target)


class NnunetBce(nn.Module):
    """The cross entropy of regions; ignored voxels are marked in one more channel."""

    def __init__(
        self,
        *,
        activation: Literal["sigmoid"] = "sigmoid",
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss

        channels = torch.arange(input.shape[1])
        regions = (target[:, None] == channels.reshape(-1, *[1] * (input.ndim - 2))).long()
        if self.ignore_index is not None:
            regions = torch.cat([regions, (target[:, None] == self.ignore_index).long()], 1)
        dice = {"batch_dice": False, "do_bg": True, "smooth": 1e-5, "ddp": False}
        ignores = self.ignore_index is not None
        loss = DC_and_BCE_loss({}, dice, weight_dice=0, use_ignore_label=ignores)
        return loss(input, regions)


class MedicaiClDice(nn.Module):
    """One channel; `memory_efficient_skeleton` is the library's default, or its full gradient."""

    def __init__(self, *, memory_efficient_skeleton: bool = True) -> None:
        super().__init__()
        self.memory_efficient_skeleton = memory_efficient_skeleton

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from medicai.losses import BinaryCenterlineDiceLoss

        loss = BinaryCenterlineDiceLoss(
            from_logits=True,
            num_classes=1,
            iters=3,
            memory_efficient_skeleton=self.memory_efficient_skeleton,
        )
        target = with_channel(input, target).to(input.dtype)
        return loss(target.movedim(1, -1), input.movedim(1, -1))


class KorniaDice(nn.Module):
    def __init__(
        self,
        *,
        activation: Literal["softmax"] = "softmax",
        class_weight: Sequence[float] | None = None,
        ignore_index: int | None = -100,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.class_weight = class_weight
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        from kornia.losses import dice_loss

        weight = None if self.class_weight is None else input.new_tensor(self.class_weight)
        return dice_loss(input, target, "macro", 1e-5, weight, self.ignore_index)
