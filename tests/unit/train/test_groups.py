"""Parameters are grouped by what they are, not by what they are called."""

import pytest
import torch
from torch import nn

from medkit.train import param_groups


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU())
        self.norm2d = nn.LayerNorm([2, 4])
        self.position = nn.Parameter(torch.zeros(1, 8, 4))
        self.head = nn.Linear(4, 2)


def _names(model: nn.Module, groups: list[dict[str, object]]) -> list[set[str]]:
    names = {id(p): n for n, p in model.named_parameters()}
    return [{names[id(p)] for p in group["params"]} for group in groups]  # type: ignore[attr-defined]


def test_norms_and_vectors_do_not_decay_wherever_they_are() -> None:
    model = _Net()

    groups = param_groups(model, 0.01)

    assert [g["weight_decay"] for g in groups] == [0.01, 0.0]
    assert _names(model, groups) == [
        {"stem.0.weight", "position", "head.weight"},
        {
            "stem.0.bias",
            "stem.1.weight",
            "stem.1.bias",
            "norm2d.weight",
            "norm2d.bias",
            "head.bias",
        },
    ]


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4),
        nn.InstanceNorm3d(4, affine=True),
        nn.GroupNorm(2, 4),
        nn.LayerNorm([2, 2, 4]),
        nn.RMSNorm([2, 4]),
        nn.SyncBatchNorm(4),
    ],
)
def test_no_parameter_of_a_norm_decays(norm: nn.Module) -> None:
    assert [g["weight_decay"] for g in param_groups(norm, 0.1)] == [0.0]


def test_every_trainable_parameter_is_in_one_group() -> None:
    model = _Net()
    model.head.weight.requires_grad_(False)
    model.again = model.stem  # shared

    groups = param_groups(model, 0.01)

    grouped = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters() if p.requires_grad}


def test_names_can_be_spared_by_the_caller_and_by_the_model() -> None:
    class Knowing(_Net):
        def no_weight_decay(self) -> set[str]:
            return {"position"}

    assert "position" in _names(m := _Net(), param_groups(m, 0.01, skip=["position"]))[1]
    assert "stem.0.weight" in _names(m := _Net(), param_groups(m, 0.01, skip=["stem."]))[1]
    assert "position" in _names(m := Knowing(), param_groups(m, 0.01))[1]


def test_rates_scale_by_the_longest_prefix_of_whole_name_parts() -> None:
    model = nn.ModuleDict({"enc": nn.Linear(2, 2), "encoder": nn.ModuleList([nn.Linear(2, 2)] * 1)})
    model["encoder"].append(nn.Linear(2, 2))

    groups = param_groups(
        model, 0.0, lr=1.0, lr_scale={"encoder": 0.5, "encoder.1": 0.25, "enc.bias": 0.125}
    )

    rates = {
        n: g["lr"] for g, names in zip(groups, _names(model, groups), strict=True) for n in names
    }
    assert rates == {
        "enc.weight": 1.0,
        "enc.bias": 0.125,
        "encoder.0.weight": 0.5,
        "encoder.0.bias": 0.5,
        "encoder.1.weight": 0.25,
        "encoder.1.bias": 0.25,
    }


def test_layers_decay_towards_the_input_as_in_beit() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(4)))

    groups = param_groups(model, 0.05, lr=2.0, layer_decay=0.5, layers=["0", "1", "2"])

    assert [g["lr"] for g in groups] == [2.0, 1.0, 0.5, 0.25]
    assert _names(model, groups) == [{"3.weight"}, {"2.weight"}, {"1.weight"}, {"0.weight"}]


def test_an_optimizer_takes_the_groups() -> None:
    model = _Net()

    optimizer = torch.optim.AdamW(param_groups(model, 0.01), lr=0.1)

    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip": ["hed"]}, "skip must be names or prefixes of parameters; got 'hed'"),
        ({"lr": 1.0, "lr_scale": {"ste": 0.1}}, "lr_scale must be names or prefixes"),
        ({"lr": 1.0, "layers": ["body"]}, "layers must be names or prefixes"),
        ({"lr_scale": {"stem": 0.1}}, "lr must be given when learning rates are scaled"),
        ({"layer_decay": 0.5}, "lr must be given when learning rates are scaled"),
        ({"lr": 1.0, "layer_decay": 1.5}, r"layer_decay must be in \[0, 1\]; got 1.5"),
        ({"lr": 1.0, "layer_decay": 0.0}, "layer_decay must be positive; got 0.0"),
        ({"lr": 1.0, "layer_decay": 0.5}, "layers must be given with layer_decay, and only then"),
        ({"lr": 1.0, "layers": ["head"]}, "layers must be given with layer_decay, and only then"),
    ],
)
def test_mistakes_are_told(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        param_groups(_Net(), 0.01, **options)  # type: ignore[arg-type]
