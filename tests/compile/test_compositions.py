"""Compositions of losses compile to one graph where they do more than call their losses."""

import pytest
import torch
from torch import Tensor

from medkit.losses import (
    CrossEntropyLoss,
    DeepSupervision,
    DiceLoss,
    DynamicWeightAverage,
    ReLoBRaLo,
    WeightedSum,
)
from medkit.ops import one_hot
from medkit.testing import assert_close

SIZES = ((8, 6, 4), (4, 3, 2), (3, 2, 2), (1, 1, 1))


def truths() -> dict[str, Tensor]:
    labels = torch.randint(0, 3, (2, *SIZES[0]))
    return {
        "class map": torch.where(torch.rand(labels.shape) < 0.1, 255, labels),
        "one-hot": one_hot(labels, num_classes=3),
        "regions": torch.rand(2, 3, *SIZES[0]) < 0.3,
    }


@pytest.mark.parametrize("form", truths())
def test_heads_of_every_size_are_one_graph(form: str) -> None:
    ignored = 255 if form == "class map" else None
    losses = {
        "dice": (1.0, DiceLoss(ignore_index=ignored)),
        "ce": (1.0, CrossEntropyLoss(ignore_index=ignored, activation="sigmoid")),
    }
    loss, truth = DeepSupervision(WeightedSum(losses)), truths()[form]
    heads = [torch.randn(2, 3, *size) for size in SIZES]
    mask = torch.rand(2, *SIZES[0]) < 0.8

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)

    assert_close(compiled(heads, truth, mask=mask), loss(heads, truth, mask=mask))


@pytest.mark.parametrize("kind", [DynamicWeightAverage, ReLoBRaLo])
def test_weights_that_move_do_not_ask_for_a_new_graph(kind: type) -> None:
    loss, terms = kind(["a", "b"]), {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    compiled = torch.compile(loss.total, backend="aot_eager", fullgraph=True)

    with torch.compiler.set_stance("default"):
        assert float(compiled(terms)) == 5.0
    for value in (1.0, 3.0, 2.0):
        loss.update({"a": value, "b": 1.0})
        with torch.compiler.set_stance("fail_on_recompile"):
            assert_close(compiled(terms), loss.total(terms))
    assert loss.weights["a"] != 1.0
