"""Uncertainty over networks, views and dropout: the stacked formula, in running sums."""

import gc
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medkit.inference import (
    Ensemble,
    PredictiveMoments,
    Uncertainty,
    View,
    flip_views,
    mc_dropout,
    predictive_uncertainty,
    sliding_window_inference,
)
from medkit.testing import assert_close
from unit.losses.refusals import refuses


def entropy(p: np.ndarray) -> np.ndarray:
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0)


def stacked(p: np.ndarray, activation: str) -> Uncertainty:
    """The definition over predictions ``(sample, batch, class, ...)``, in float64."""

    def of(probability: np.ndarray, axis: int) -> np.ndarray:
        if activation == "softmax":
            return entropy(probability).sum(axis)
        return entropy(probability) + entropy(1 - probability)

    mean, expected = p.mean(0), of(p, 2).mean(0)
    whole = of(mean, 1)
    return Uncertainty(mean, p.var(0), whole, expected, whole - expected)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_running_moments_equal_the_stacked_formula(
    activation: str, dtype: torch.dtype, tolerance: float
) -> None:
    logits = 3 * np.random.default_rng(0).standard_normal((50, 2, 4, 3, 5))
    tensor = torch.from_numpy(logits).to(dtype)
    p = torch.softmax(tensor, 2) if activation == "softmax" else torch.sigmoid(tensor)
    moments = PredictiveMoments(activation=activation)
    for each in p:
        moments.update(each)

    for name, ours in moments.compute()._asdict().items():
        expected = getattr(stacked(p.double().numpy(), activation), name)
        assert ours.dtype == dtype, name
        assert np.abs(ours.double().numpy() - expected).max() < tolerance, name


def test_small_spread_around_a_large_mean_is_not_lost() -> None:
    p = 0.9 + 1e-4 * np.random.default_rng(0).standard_normal((200, 1, 1, 30))
    moments = PredictiveMoments(activation="sigmoid")
    for each in p:
        moments.update(torch.from_numpy(each).float())

    assert_close(moments.compute().variance, p.astype(np.float32).astype(float).var(0), rtol=1e-3)


def test_two_sure_networks_that_disagree_know_nothing_together() -> None:
    moments = PredictiveMoments()
    for p in (0.0, 1.0):
        moments.update(torch.tensor([[[p], [1 - p]]]))
    result = moments.compute()

    assert result.predictive_entropy.item() == pytest.approx(math.log(2))
    assert result.expected_entropy.item() == 0
    assert result.mutual_information.item() == pytest.approx(math.log(2))
    assert result.variance.flatten().tolist() == [0.25, 0.25]


def test_doubt_that_all_share_is_not_disagreement() -> None:
    moments = PredictiveMoments()
    for _ in range(7):
        moments.update(torch.full((1, 2, 3), 0.5))
    result = moments.compute()

    assert result.mutual_information.tolist() == [[0.0, 0.0, 0.0]]
    assert_close(result.expected_entropy, torch.full((1, 3), math.log(2)))


def test_moments_refuse_what_does_not_fit() -> None:
    moments = PredictiveMoments()
    with pytest.raises(ValueError, match="updated at least once"):
        moments.compute()
    moments.update(torch.full((1, 2, 3), 0.5))
    with pytest.raises(ValueError, match=r"of shape \(1, 2, 3\) as before"):
        moments.update(torch.full((1, 2, 4), 0.5))
    with refuses("activation"):
        PredictiveMoments(activation="relu")


class Gate(nn.Module):
    """Logits x where a coin of dropout shows heads, 0 where it shows tails."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.dropout(x)) * math.sqrt(1 + self.norm.eps)


def test_mc_dropout_finds_the_distribution_of_a_coin() -> None:
    """A coin of p = 0.25 gives sigmoid(0) or, rescaled, sigmoid(2 / 0.75)."""
    heads, tails = 1 / (1 + math.exp(-2 / 0.75)), 0.5
    mean = 0.75 * heads + 0.25 * tails
    variance = 0.75 * 0.25 * (heads - tails) ** 2
    network = Gate(0.25)

    result = mc_dropout(
        torch.full((1, 1, 40, 40), 2.0), network, num_samples=60, activation="sigmoid"
    )

    error = math.sqrt(variance / (60 * 1600))
    assert abs(result.mean.mean().item() - mean) < 4 * error
    assert result.variance.mean().item() == pytest.approx(variance * 59 / 60, rel=0.02)


def test_mc_dropout_leaves_modes_statistics_and_random_numbers_alone() -> None:
    network = nn.Sequential(Gate(0.5), nn.Dropout(0.0), Gate(0.1))
    network.train()
    network[2].eval()
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(2, 1, 6, 6)
    state = torch.get_rng_state()

    mc_dropout(x, network, num_samples=3, activation="sigmoid")

    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_modes_come_back_after_an_error() -> None:
    network = Gate(0.5).train()

    with pytest.raises(RuntimeError):
        mc_dropout(torch.randn(1, 3, 6, 6), network, num_samples=1, activation="sigmoid")
    assert network.training
    assert network.norm.training


def test_seed_decides_the_draws() -> None:
    network, x = Gate(0.5), torch.randn(1, 1, 8, 8)

    def draw(seed: int) -> Tensor:
        torch.rand(seed + 1)  # the global state has no say
        return mc_dropout(x, network, num_samples=3, activation="sigmoid", seed=seed).mean

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


@pytest.mark.parametrize("kind", [nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout])
def test_every_kind_of_dropout_is_found(kind: type[nn.Module]) -> None:
    network = nn.Sequential(kind(0.5), nn.Flatten(2))
    x = torch.ones(1, 2, *[3] * {"Dropout1d": 1, "Dropout2d": 2}.get(kind.__name__, 3))

    assert mc_dropout(x, network, num_samples=8, predictor=first_three).variance.max() > 0


def first_three(network: nn.Module, x: Tensor) -> Tensor:
    return network(x).reshape(x.shape)


@pytest.mark.parametrize("network", [nn.Conv2d(1, 2, 1), nn.Sequential(nn.Dropout(0.0))])
def test_networks_without_active_dropout_are_refused(network: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"a network with a dropout module of p > 0"):
        mc_dropout(torch.zeros(1, 1, 4, 4), network)


def test_one_pass_folds_networks_views_and_windows() -> None:
    generator = np.random.default_rng(3)
    weights = generator.standard_normal((3, 2, 1, 3, 3))
    networks = []
    for weight in weights:
        network = nn.Conv2d(1, 2, 3, padding=1, bias=False).double()
        network.weight.data = torch.from_numpy(weight)
        networks.append(network)
    x = torch.from_numpy(generator.standard_normal((1, 1, 20, 14)))

    def by_windows(network: nn.Module, volume: Tensor) -> Tensor:
        return sliding_window_inference(volume, network, roi_size=8)

    result = predictive_uncertainty(x, networks, predictor=by_windows, views=None)

    p = []
    for network in networks:
        for view in flip_views((0, 1)):
            logits = view.invert(by_windows(network, view.apply(x)), x.shape[2:])
            p.append(torch.softmax(logits, 1).numpy())
    for name, ours in result._asdict().items():
        assert np.abs(ours.numpy() - getattr(stacked(np.stack(p), "softmax"), name)).max() < 1e-12


def test_memory_does_not_grow_with_the_number_of_draws() -> None:
    shape = (1, 2, 31, 17)

    def living(samples: int) -> int:
        counts: list[int] = []

        class Watched(nn.Dropout):
            def forward(self, x: Tensor) -> Tensor:
                alive = [t for t in gc.get_objects() if type(t) is Tensor and t.shape == shape]
                counts.append(len(alive))
                return super().forward(x)

        mc_dropout(torch.ones(shape), Watched(0.5), num_samples=samples)
        return max(counts)

    assert living(12) == living(3)


def test_points_without_spatial_axes_are_predicted_in_chunks() -> None:
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
    points = torch.rand(100, 3)

    def by_chunks(network: nn.Module, x: Tensor) -> Tensor:
        return torch.cat([network(chunk) for chunk in x.split(30)])

    result = mc_dropout(points, network, num_samples=5, predictor=by_chunks, activation="sigmoid")

    assert result.mean.shape == result.mutual_information.shape == (100, 1)
    assert result.variance.mean() > 0


def test_views_and_draws_are_combined() -> None:
    calls = []

    def count(network: nn.Module, x: Tensor) -> Tensor:
        calls.append(network)
        return network(x)

    networks = [nn.Dropout(0.5), nn.Dropout(0.2)]
    views = [View(), View(flip=(0,))]
    x = torch.ones(1, 2, 4, 4)
    predictive_uncertainty(x, networks, predictor=count, views=views, dropout_samples=3)

    assert len(calls) == 2 * 2 * 3


def test_no_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="models must be at least one network"):
        predictive_uncertainty(torch.zeros(1, 1, 4, 4), [])
    with pytest.raises(ValueError, match="dropout_samples must be at least 0"):
        predictive_uncertainty(torch.zeros(1, 1, 4, 4), nn.Identity(), dropout_samples=-1)


def scaled(factor: float) -> nn.Module:
    layer = nn.Conv1d(2, 2, 1, bias=False)
    layer.weight.data = factor * torch.eye(2)[..., None]
    return layer


def test_ensemble_averages_probabilities_or_logits() -> None:
    x = torch.tensor([[[1.0], [0.0]]])
    sigmoid = [1 / (1 + math.exp(-k)) for k in (1, 3)]

    of_probabilities = Ensemble([scaled(1), scaled(3)], weights=(1, 3))(x)
    of_logits = Ensemble([scaled(1), scaled(3)], average="logits")(x)
    regions = Ensemble([scaled(1), scaled(3)], activation="sigmoid")(x)

    assert of_probabilities[0, 0, 0].item() == pytest.approx(sigmoid[0] / 4 + 3 * sigmoid[1] / 4)
    assert of_logits.flatten().tolist() == [2.0, 0.0]
    assert regions[0, :, 0].tolist() == pytest.approx([sum(sigmoid) / 2, 0.5])
    assert "weights=(0.25, 0.75)" in repr(Ensemble([scaled(1), scaled(3)], weights=(1, 3)))


def test_ensemble_is_a_module_with_its_members() -> None:
    ensemble = Ensemble([scaled(1), scaled(3)])
    other = Ensemble([scaled(5), scaled(7)])
    other.load_state_dict(ensemble.state_dict())

    x = torch.randn(2, 2, 5)
    assert torch.equal(other(x), ensemble(x))
    assert ensemble(x.half().float()).dtype == torch.float32
    assert ensemble.to(torch.bfloat16)(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"weights": (1.0,)}, "weights"),
        ({"weights": (0.0, 0.0)}, "weights"),
        ({"weights": (-1.0, 2.0)}, "weights"),
        ({"average": "median"}, "average"),
        ({"activation": "relu"}, "activation"),
    ],
)
def test_ensemble_refuses_bad_options(options: dict[str, object], argument: str) -> None:
    with refuses(argument):
        Ensemble([scaled(1), scaled(2)], **options)
    with pytest.raises(ValueError, match="models must be at least one network"):
        Ensemble([])


def test_members_that_disagree_on_the_classes_are_refused() -> None:
    ensemble = Ensemble([nn.Conv1d(1, 3, 1), nn.Conv1d(1, 1, 1)])  # one would spread over three
    with pytest.raises(ValueError, match=r"shape \(1, 3, 4\), as those before; got shape \(1, 1"):
        ensemble(torch.zeros(1, 1, 4))
