"""All losses and metrics of medicai 0.0.4, each as a call of medkit.

medicai works per sample and class: one minus the ratio, smoothed by 1e-7, and as cross entropy
of a class the sum of -t log p over its voxels, divided by all voxels that count in the sample.
Its generalized Dice adds the smoothing to the weighted sum below alone, and an absent class has
weight 0. Its clDice turns ignored voxels into background. Its metrics divide sums over all samples
by one another, leave classes out that the target lacks, and take probabilities as they are.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medkit.losses import (
    cldice_loss,
    cross_entropy_loss,
    dice_loss,
    generalized_dice_loss,
    jaccard_loss,
    tversky_loss,
)
from medkit.ops import Overlap, hard_overlap, voxel_scan
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


ROWS = {"smooth": SMOOTH, "reduction": "none"}


def dice(input: Tensor, target: Tensor, **options: object) -> Tensor:
    return dice_loss(input, target, **ROWS, **options)


def jaccard(input: Tensor, target: Tensor, **options: object) -> Tensor:
    return jaccard_loss(input, target, **ROWS, **options)


def tversky(input: Tensor, target: Tensor, **options: object) -> Tensor:
    return tversky_loss(input, target, **ROWS, **options)


def generalized(
    input: Tensor, target: Tensor, *, weight_type: str = "square", **options: object
) -> Tensor:
    """Return the loss, with the smoothing of medicai put below its ratio."""
    loss = generalized_dice_loss(
        input,
        target,
        absent="skip",
        smooth=0.0,
        weight_type=weight_type,
        reduction="none",
        **options,
    )
    counts = soft_counts(input, target, **options)
    power = {"square": -2.0, "simple": -1.0, "uniform": 0.0}[weight_type]
    weights = torch.where(counts.target > 0, counts.target**power, 0.0)
    below = (weights * (counts.predicted + counts.target)).sum(1)
    return 1 - (1 - loss) * below / (below + SMOOTH)


def soft_counts(
    input: Tensor, target: Tensor, *, ignore_index: int | None = None, **options: object
) -> Overlap:
    kept = None if ignore_index is None else target[:, 0] != ignore_index
    if target.shape[1] < input.shape[1]:
        target = target[:, 0]
    target = target if kept is None else torch.where(kept, target, 0)
    return voxel_scan(input, target, weight=kept, needs="overlap", **options).overlap


def cldice(input: Tensor, target: Tensor, iterations: int, **options: object) -> Tensor:
    return cldice_loss(input, target, iterations=iterations, **ROWS, **options)


def cldice_of_class_1(iterations: int) -> Tensor:
    valid = LABELS != 2
    prob, target = PROBABILITIES[:, 1:2] * valid, ((LABELS == 1) & valid).float()
    return cldice(prob, target, iterations, activation=None)


def pooled_dice(counts: Overlap) -> Tensor:
    """Return the Dice score of each class that the target has, of sums over all samples."""
    shared, predicted, target, _ = (each.sum(0) for each in counts)
    return (2 * shared / (predicted + target))[target > 0]


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
IGNORING = {"ignore_index": 2}
ON_PROBABILITIES = {"ignore_index": 2, "activation": None}
OVERLAP = {
    "Dice": dice,
    "IoU": jaccard,
    "Tversky": tversky,
    "GeneralizedDice": generalized,
}
CALLS = {
    "BinaryDiceLoss/logits/1c/ign2": dice(BINARY_LOGITS, LABELS, **IGNORING, **SIGMOID),
    "SparseDiceCELoss/prob/ign2": dice(PROBABILITIES, LABELS, **ON_PROBABILITIES)
    + entropy(PROBABILITIES, LABELS, **ON_PROBABILITIES),
    "SparseDiceCELoss/logits/t1/ign2": (
        dice(LOGITS, LABELS, **IGNORING) + entropy(LOGITS, LABELS, **IGNORING)
    )[:, 1:2],
    "SparseDiceCELoss/logits/w0.3,0.7": 0.3 * dice(LOGITS, LABELS) + 0.7 * entropy(LOGITS, LABELS),
    "CategoricalDiceCELoss/logits": dice(LOGITS, ONE_HOT) + entropy(LOGITS, LABELS),
    "BinaryDiceCELoss/logits/1c": dice(BINARY_LOGITS, BINARY_LABELS, **SIGMOID)
    + binary_entropy(BINARY_LOGITS, BINARY_LABELS),
    "BinaryDiceCELoss/logits/multilabel3": dice(LOGITS, REGIONS, **SIGMOID)
    + binary_entropy(LOGITS, REGIONS),
    "SparseTverskyLoss/a.7b.3": tversky(LOGITS, LABELS, alpha=0.7, beta=0.3, **IGNORING),
    "SparseCenterlineDiceLoss/logits/all/it10": cldice(LOGITS, LABELS, 10),
    "CategoricalCenterlineDiceLoss/logits/it10": cldice(LOGITS, ONE_HOT, 10),
    "BinaryCenterlineDiceLoss/logits/1c/it10": cldice(BINARY_LOGITS, BINARY_LABELS, 10, **SIGMOID),
}
for name, loss in OVERLAP.items():
    CALLS |= {
        f"Sparse{name}Loss/logits/ign2": loss(LOGITS, LABELS, **IGNORING),
        f"Sparse{name}Loss/logits/noign": loss(LOGITS, LABELS),
        f"Categorical{name}Loss/logits": loss(LOGITS, ONE_HOT),
        f"Binary{name}Loss/logits/1c": loss(BINARY_LOGITS, BINARY_LABELS, **SIGMOID),
        f"Binary{name}Loss/logits/multilabel3": loss(LOGITS, REGIONS, **SIGMOID),
    }
for weight_type in ("square", "simple", "uniform"):
    CALLS[f"SparseGeneralizedDiceLoss/{weight_type}/ign2"] = generalized(
        LOGITS, LABELS, weight_type=weight_type, **IGNORING
    )
for iterations in (3, 10, 50):
    CALLS[f"SparseCenterlineDiceLoss/prob/t1/ign2/it{iterations}"] = cldice_of_class_1(iterations)

LABELLED = hard_overlap(LOGITS.argmax(1), LABELS[:, 0], num_classes=3, ignore_index=2)
KAGGLE = CALLS["SparseDiceCELoss/prob/ign2"].mean() + cldice_of_class_1(50).mean()
SINGLE = {
    "kaggle_combined/float32": KAGGLE,
    "kaggle_combined/int32": KAGGLE,  # labels are integers in medkit
    "metric/sparse_all_ign2": pooled_dice(
        soft_counts(PROBABILITIES, LABELS, **ON_PROBABILITIES)
    ).mean(),
    "metric/sparse_all_ign2_logits": pooled_dice(LABELLED).mean(),
    "metric/sparse_t1_ign2_logits": pooled_dice(LABELLED)[1],
    "metric/cat_logits": pooled_dice(
        hard_overlap(LOGITS.argmax(1), ONE_HOT.argmax(1), num_classes=3)
    ).mean(),
    "metric/bin_logits": pooled_dice(hard_overlap(BINARY_LOGITS > 0, BINARY_LABELS > 0)).mean(),
    "metric/bin_prob": pooled_dice(
        soft_counts(BINARY_LOGITS.sigmoid(), BINARY_LABELS, activation=None)
    ).mean(),
}


def test_every_number_is_mapped() -> None:
    losses = {f"{name}/{reduction}" for name in CALLS for reduction in ("none", "mean", "sum")}

    assert losses | SINGLE.keys() == EXPECTED.keys()
    assert len(EXPECTED) == 119


@pytest.mark.parametrize("name", CALLS)
def test_loss_equals_medicai(name: str) -> None:
    expected = np.array(EXPECTED[f"{name}/none"])

    assert_close(CALLS[name], expected, rtol=2e-6)
    assert_close(CALLS[name].mean(), EXPECTED[f"{name}/mean"], rtol=2e-6)
    assert_close(CALLS[name].sum(), EXPECTED[f"{name}/sum"], rtol=2e-6)


@pytest.mark.parametrize("name", SINGLE)
def test_number_equals_medicai(name: str) -> None:
    assert_close(SINGLE[name].float(), EXPECTED[name], rtol=2e-6)


def test_gradient_equals_medicai() -> None:
    p = PROBABILITIES.clone().requires_grad_()

    (dice(p, LABELS, **ON_PROBABILITIES) + entropy(p, LABELS, **ON_PROBABILITIES)).mean().backward()

    assert_close(p.grad, array("sparse_dice_ce_grad"), atol=1e-7)
