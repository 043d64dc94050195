"""What people get wrong in their first hour, and what they are told."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from medkit.data import PatchDataset, VolumeDataset
from medkit.inference import sliding_window_inference
from medkit.losses import DiceLoss
from medkit.metrics import DiceScore
from medkit.nn import UNet2D
from medkit.train import Stepper, evaluate, fit
from medkit.transforms import Compose, RandomFlip


def network() -> nn.Module:
    return nn.Conv2d(1, 2, 1)


def stepped(model: nn.Module) -> Stepper:
    return Stepper(model, torch.optim.SGD(model.parameters(), lr=0.1))


def train_on(batch: object) -> object:
    model = network()
    return fit(model, [batch], DiceLoss(), stepper=stepped(model), epochs=1, progress=False)


IMAGE, LABEL = torch.rand(1, 1, 16, 16), torch.zeros(1, 16, 16, dtype=torch.long)

MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "an array for a network": (
        lambda: UNet2D(1, 2, channels=(4, 8))(np.zeros((1, 1, 16, 16), np.float32)),
        "input must be a tensor (torch.from_numpy makes one); got ndarray",
    ),
    "windows, network first": (
        lambda: sliding_window_inference(network(), IMAGE, roi_size=8),
        "inputs must be a tensor; the predictor comes second; got Conv2d",
    ),
    "the optimizer first": (
        lambda: Stepper(torch.optim.SGD(network().parameters(), lr=0.1), network()),
        "model must be a module; the optimizer comes second; got SGD",
    ),
    "parameters for an optimizer": (
        lambda: Stepper(network(), network().parameters()),
        "optimizer must be an optimizer of torch; got generator",
    ),
    "an optimizer of another network": (
        lambda: Stepper(network(), torch.optim.SGD(network().parameters(), lr=0.1)),
        "optimizer must be made for parameters of this model; got none of them",
    ),
    "batches that are pairs": (
        lambda: train_on((IMAGE, LABEL)),
        "batch must be a dict with 'image' and 'label' (the argument keys names others); got tuple",
    ),
    "another name for the label": (
        lambda: train_on({"image": IMAGE, "mask": LABEL}),
        "(the argument keys names others); got ['image', 'mask']",
    ),
    "a metric's class": (
        lambda: evaluate(network(), [{"image": IMAGE, "label": LABEL}], {"dice": DiceScore}),
        "metrics['dice'] must be a metric; got the class DiceScore",
    ),
    "one transform for a list": (
        lambda: Compose(RandomFlip(axes=0)),
        "transforms must be a list of transforms; got RandomFlip",
    ),
    "a tensor for a sample": (
        lambda: Compose([RandomFlip(axes=0)])(IMAGE[0]),
        "sample must be a dict of tensors by name, such as 'image'; got Tensor",
    ),
    "a label without its channel": (
        lambda: RandomFlip(axes=0, probability=1.0)({"image": IMAGE[0], "label": LABEL[0]}),
        "sample['label'] must be (channel, 16, 16) like the image; got shape (16, 16)",
    ),
    "paths for cases": (
        lambda: VolumeDataset(["a.nii.gz"]),
        "cases[0] must be a mapping with 'image' and perhaps 'label' and 'id'; got 'a.nii.gz'",
    ),
    "a list for a data set": (
        lambda: PatchDataset([{"image": IMAGE}], patch_size=4)[0],
        "dataset must be a VolumeDataset or another data set with a method case; got list",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_message_names_the_argument_the_rule_and_the_value(mistake: str, unhooked) -> None:
    make, message = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        make()
