"""Grad-CAM gives the maps of MONAI's, run beside it."""

import copy
import importlib
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from contract.test_peer_defects import require
from medkit.inference import GradCAM
from medkit.testing import assert_close


@pytest.fixture(autouse=True)
def _monai() -> Iterator[None]:
    require("monai")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("method", "peer"), [("gradcam", "GradCAM"), ("gradcam++", "GradCAMpp")])
def test_maps_of_a_classifier(dims: int, method: str, peer: str) -> None:
    monai = importlib.import_module("monai.networks.nets")
    model = monai.DenseNet(dims, 1, 3, init_features=4, growth_rate=4, block_config=(2, 2)).double()
    with torch.no_grad():
        model.class_layers.out.weight.mul_(100)  # MONAI adds 1e-7 to g**2 in denominators
    x = torch.randn(1, 1, *(18, 20, 16)[:dims], dtype=torch.float64)  # MONAI's takes one sample
    layer = "class_layers.relu"
    theirs = getattr(importlib.import_module("monai.visualize"), peer)(
        copy.deepcopy(model), layer, postprocessing=_unchanged
    )
    for target in range(3):
        expected = theirs(x, class_idx=target)
        assert torch.isfinite(expected).all()
        maps = GradCAM(model, layer, method=method)(x, target=target)
        scaled = expected / expected.max() if expected.max() > 0 else expected

        assert_close(maps, scaled, rtol=1e-4, atol=1e-6)


def test_maps_of_a_segmentation() -> None:
    monai = importlib.import_module("monai.networks.nets")
    model = monai.BasicUNet(3, 1, 2, features=(4, 4, 8, 8, 8, 4)).double().eval()
    x = torch.randn(1, 1, 32, 16, 16, dtype=torch.float64)
    theirs = importlib.import_module("monai.visualize").GradCAM(
        copy.deepcopy(model), "upcat_1", postprocessing=_unchanged
    )

    maps = GradCAM(model, "upcat_1", scale="none")(x, target=1)

    assert_close(maps, theirs(x, class_idx=1))


def _unchanged(x: Tensor) -> Tensor:
    return x
