"""The Dice and cross-entropy losses of medicai 0.0.4, each as a call of medkit.

medicai works per sample and class: one minus the ratio, smoothed by 1e-7, and as cross entropy
of a class the sum of -t log p over its voxels, divided by all voxels that count in the sample.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medkit.losses import cross_entropy_loss, dice_loss
from medkit.testing import assert_close

GOLDEN = Path(__file__).parents[2] / "golden" / "medicai_losses"
EXPECTED = json.loads((GOLDEN / "medicai_losses.json").read_text())
ARRAYS = np.load(GOLDEN / "medicai_losses.npz")
SMOOTH = 1e-7


def array(name: str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(ARRAYS[name], -1, 1)))


LABELS = array("labels").long()
LOGITS, PROBABILITIES, ONE_HOT = array("logits"), array("prob"), array("onehot")
BINARY_LABELS, BINARY_LOGITS = array("bin_label"), array("bin_logit")
REGIONS = array("multilabel")


def dice(input: Tensor, target: Tensor, **options: object) -> Tensor:
    return dice_loss(input, target, smooth=SMOOTH, reduction="none", **options)


def entropy(input: Tensor, target: Tensor, **options: object) -> Tensor:
    """Return the cross entropy of each sample and class: that of the voxels of the class."""
    terms = cross_entropy_loss(input, target, reduction="none", **options)
    labels = target[:, 0]
    counted = (labels != options.get("ignore_index", -1)).flatten(1).sum(1)
    each = [torch.where(labels == c, terms, 0.0).flatten(1).sum(1) for c in range(input.shape[1])]
    return torch.stack(each, 1) / counted[:, None]


def binary_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean over the voxels of each sample and channel."""
    each = [
        cross_entropy_loss(
            logits[:, c : c + 1], target[:, c : c + 1], activation="sigmoid", reduction="none"
        )
        for c in range(logits.shape[1])
    ]
    return torch.stack([terms.flatten(1).mean(1) for terms in each], 1)


SIGMOID = {"activation": "sigmoid"}
CALLS = {
    "SparseDiceLoss/logits/ign2": dice(LOGITS, LABELS, ignore_index=2),
    "SparseDiceLoss/logits/noign": dice(LOGITS, LABELS),
    "CategoricalDiceLoss/logits": dice(LOGITS, ONE_HOT),
    "BinaryDiceLoss/logits/1c": dice(BINARY_LOGITS, BINARY_LABELS, **SIGMOID),
    "BinaryDiceLoss/logits/1c/ign2": dice(BINARY_LOGITS, LABELS, ignore_index=2, **SIGMOID),
    "BinaryDiceLoss/logits/multilabel3": dice(LOGITS, REGIONS, **SIGMOID),
    "SparseDiceCELoss/prob/ign2": dice(PROBABILITIES, LABELS, ignore_index=2, activation=None)
    + entropy(PROBABILITIES, LABELS, ignore_index=2, activation=None),
    "SparseDiceCELoss/logits/t1/ign2": (
        dice(LOGITS, LABELS, ignore_index=2) + entropy(LOGITS, LABELS, ignore_index=2)
    )[:, 1:2],
    "SparseDiceCELoss/logits/w0.3,0.7": 0.3 * dice(LOGITS, LABELS) + 0.7 * entropy(LOGITS, LABELS),
    "CategoricalDiceCELoss/logits": dice(LOGITS, ONE_HOT) + entropy(LOGITS, LABELS),
    "BinaryDiceCELoss/logits/1c": dice(BINARY_LOGITS, BINARY_LABELS, **SIGMOID)
    + binary_entropy(BINARY_LOGITS, BINARY_LABELS),
    "BinaryDiceCELoss/logits/multilabel3": dice(LOGITS, REGIONS, **SIGMOID)
    + binary_entropy(LOGITS, REGIONS),
}


def test_every_dice_and_cross_entropy_loss_is_mapped() -> None:
    known = {name.rpartition("/")[0] for name in EXPECTED if "Dice" in name.split("/")[0]}
    others = {name for name in known if "Centerline" in name or "Generalized" in name}

    assert known - others == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_equals_medicai(name: str) -> None:
    expected = np.array(EXPECTED[f"{name}/none"])

    assert_close(CALLS[name], expected, rtol=2e-6)
    assert_close(CALLS[name].mean(), EXPECTED[f"{name}/mean"], rtol=2e-6)
    assert_close(CALLS[name].sum(), EXPECTED[f"{name}/sum"], rtol=2e-6)


def test_gradient_equals_medicai() -> None:
    p = PROBABILITIES.clone().requires_grad_()

    options = {"ignore_index": 2, "activation": None}
    (dice(p, LABELS, **options) + entropy(p, LABELS, **options)).mean().backward()

    assert_close(p.grad, array("sparse_dice_ce_grad"), atol=1e-7)
