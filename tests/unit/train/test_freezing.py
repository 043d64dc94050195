"""Frozen parameters stay, the report says which."""

import pytest
import torch
from torch import nn

from medkit.train import freeze, param_groups, unfreeze


def _model() -> nn.Module:
    encoder = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2))
    return nn.ModuleDict({"encoder": encoder, "encoder_head": nn.Linear(2, 1)})


def test_a_prefix_freezes_whole_parts_of_names_only() -> None:
    model = _model()

    report = freeze(model, ["encoder"])

    assert report.frozen == ("encoder.0.weight", "encoder.0.bias", "encoder.1.weight",
                             "encoder.1.bias")  # fmt: skip
    assert report.trainable == ("encoder_head.weight", "encoder_head.bias")
    assert (report.num_frozen, report.num_trainable) == (8, 3)
    assert report.moving_statistics == ("encoder.1",)


def test_frozen_parameters_stay_out_of_groups_and_where_they_are() -> None:
    model = _model()
    freeze(model, ["encoder"])
    before = model["encoder"][0].weight.clone()  # type: ignore[index]
    optimizer = torch.optim.SGD(param_groups(model, 0.1), lr=1.0)
    model["encoder_head"](torch.ones(1, 2)).sum().backward()  # type: ignore[index]

    optimizer.step()

    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    assert torch.equal(model["encoder"][0].weight, before)  # type: ignore[index]


def test_thawing_takes_it_back() -> None:
    model = _model()
    freeze(model, ["encoder", "encoder_head.bias"])

    report = unfreeze(model, ["encoder.1"])

    assert report.frozen == ("encoder.0.weight", "encoder.0.bias", "encoder_head.bias")
    assert report.moving_statistics == ()


def test_a_name_that_fits_nothing_is_an_error_before_anything_changes() -> None:
    model = _model()

    with pytest.raises(ValueError, match="names must be names or prefixes of parameters; got 'en'"):
        freeze(model, ["encoder", "en"])

    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_single_string_is_not_taken_for_its_letters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    with pytest.raises(ValueError, match=r"must be several names.* got '10'"):
        freeze(model, "10")

    assert all(parameter.requires_grad for parameter in model.parameters())
