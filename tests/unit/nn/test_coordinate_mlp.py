"""The coordinate network: published sizes and names, a NumPy oracle, SIREN, Fourier features."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from medkit.nn import CoordinateMLP, FourierFeatures, Sine
from medkit.testing import assert_close


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("width", "depth", "expected"), [(128, 4, 50_177), (256, 4, 198_657), (256, 6, 330_241)]
)
def test_sizes_are_the_published_ones(width: int, depth: int, expected: int) -> None:
    assert parameters(CoordinateMLP(width=width, depth=depth)) == expected


@pytest.mark.parametrize(
    ("depth", "dropout_after", "numbers"),
    [
        (4, (2, 4), (0, 2, 5, 7, 10)),
        (4, (3,), (0, 2, 4, 7, 9)),
        (6, (3, 5), (0, 2, 4, 7, 9, 12, 14)),
        (4, (), (0, 2, 4, 6, 8)),
    ],
)
def test_layers_are_numbered_as_in_the_published_programs(depth, dropout_after, numbers) -> None:
    state = CoordinateMLP(depth=depth, dropout_after=dropout_after).state_dict()

    assert list(state) == [f"network.{n}.{kind}" for n in numbers for kind in ("weight", "bias")]


@pytest.mark.parametrize("dropout_after", [(2, 4), (3,)])
def test_a_published_checkpoint_gives_the_published_output(dropout_after) -> None:
    layers: list[nn.Module] = []
    for layer in range(1, 5):
        layers.append(nn.Linear(3 if layer == 1 else 128, 128))
        layers += [nn.Dropout(0.1)] * (layer in dropout_after)
        layers.append(nn.ReLU())
    published = nn.Sequential(*layers, nn.Linear(128, 1), nn.Sigmoid())
    state = {f"network.{name}": value for name, value in published.state_dict().items()}
    model = CoordinateMLP(dropout=0.3, dropout_after=dropout_after).eval()

    model.load_state_dict(state, strict=True)

    x = torch.rand(50, 3)
    assert_close(model(x), published.eval()(x), atol=0, rtol=0)


def test_values_are_those_of_the_formula() -> None:
    model = CoordinateMLP(2, out_channels=3, width=5, depth=2, dropout_after=()).double()
    h = x = np.random.default_rng(0).uniform(size=(7, 2))
    for layer in (0, 2, 4):
        weight, bias = (p.detach().numpy() for p in model.network[layer].parameters())
        h = h @ weight.T + bias
        h = np.maximum(h, 0) if layer < 4 else 1 / (1 + np.exp(-h))

    assert_close(model(torch.from_numpy(x)), torch.from_numpy(h), atol=1e-14)


def test_points_have_any_leading_shape_and_no_neighbours() -> None:
    model = CoordinateMLP(encoding=FourierFeatures(num_frequencies=8)).double().eval()
    x = torch.rand(6, 7, 5, 3, dtype=torch.float64)

    y = model(x)

    assert y.shape == (6, 7, 5, 1)
    chunks = torch.cat([model(chunk) for chunk in x.reshape(-1, 3).split(37)])
    assert_close(chunks, y.reshape(-1, 1), atol=1e-14)
    assert model(x[:0]).shape == (0, 7, 5, 1)


def test_dropout_left_on_gives_samples_with_the_right_mean() -> None:
    model = CoordinateMLP(depth=1, dropout=0.5, dropout_after=(1,), out_activation=nn.Identity)
    x = torch.rand(1, 3).expand(20_000, 3)

    with torch.no_grad():
        samples, mean = model.train()(x), model.eval()(x[:1])

    error = float(samples.std()) / math.sqrt(len(samples))
    assert abs(float(samples.mean() - mean)) < 4 * error
    assert float(samples.std()) > 0.01


def test_no_dropout_position_means_no_dropout() -> None:
    model = CoordinateMLP(dropout=0.9, dropout_after=()).train()
    x = torch.rand(9, 3)

    assert torch.equal(model(x), model(x))


def test_coordinates_are_not_rounded_under_autocast() -> None:
    model = CoordinateMLP(width=16, depth=1, dropout_after=(), activation=nn.Identity)
    x = torch.tensor([[0.9, 0.9, 0.9], [0.899, 0.9, 0.9]])  # one point in bfloat16
    assert torch.equal(*x.bfloat16())
    seen: list[torch.Tensor] = []
    model.network[0].register_forward_hook(lambda *call: seen.append(call[-1]))

    with torch.autocast("cpu", torch.bfloat16):
        model(x)

    expected = x @ model.network[0].weight.T + model.network[0].bias
    assert seen[0].dtype is torch.float32
    assert_close(seen[0], expected, atol=1e-6)
    assert not torch.equal(seen[0][0], seen[0][1])


def test_fourier_features_are_those_of_the_formula() -> None:
    features = FourierFeatures(2, num_frequencies=4, scale=3.0, dtype=torch.float64)
    x = np.random.default_rng(0).uniform(size=(5, 2))
    b = features.frequencies.numpy()
    phase = [[2 * math.pi * sum(b[j] * point) for j in range(4)] for point in x]
    expected = np.concatenate([np.cos(phase), np.sin(phase)], axis=1)

    assert_close(features(torch.from_numpy(x)), torch.from_numpy(expected), atol=1e-13)


def test_fourier_frequencies_are_normal_with_the_scale() -> None:
    drawn = FourierFeatures(3, num_frequencies=2000, scale=5.0).frequencies.flatten()

    assert stats.kstest(drawn.numpy() / 5, "norm").pvalue > 0.01


def test_sines_see_standard_normal_phases_in_every_layer() -> None:
    """Theorem 1.8 of the supplement of SIREN; the biases come on top."""
    model = CoordinateMLP(width=1024, depth=4, activation=Sine, dropout_after=())
    output = 2 * torch.rand(1000, 3) - 1
    with torch.no_grad():
        for index, layer in enumerate(model.network[:-2]):
            if isinstance(layer, nn.Linear) and index > 0:
                assert abs(30 * float((output @ layer.weight.T).std()) - 1) < 0.1
            output = layer(output)


def test_siren_weights_lie_within_the_published_bounds() -> None:
    model = CoordinateMLP(width=64, activation=lambda: Sine(frequency=20))
    linears = [layer for layer in model.network if isinstance(layer, nn.Linear)]

    for index, linear in enumerate(linears):
        bound = 1 / 3 if index == 0 else math.sqrt(6 / 64) / 20
        largest = float(linear.weight.detach().abs().max())
        assert 0.9 * bound < largest <= bound


def test_fine_detail_is_learnt_with_an_encoding_or_sines() -> None:
    x = torch.linspace(0, 1, 200)[:, None]
    target = torch.sin(2 * math.pi * 12 * x)
    plain = {"width": 32, "depth": 2, "dropout_after": (), "out_activation": nn.Identity}

    def error(**options: object) -> float:
        model = CoordinateMLP(1, **plain, **options)
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(150):
            optimiser.zero_grad()
            loss = (model(x) - target).square().mean()
            loss.backward()
            optimiser.step()
        return float(loss.detach())

    encoded = error(encoding=FourierFeatures(1, num_frequencies=16, scale=10.0))
    assert max(encoded, error(activation=Sine)) < 0.1 < 0.3 < error()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth must be at least 1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"dropout_after": (5,)}, r"dropout_after must be at most depth \(4\); got 5"),
        ({"dropout_after": (0,)}, "dropout_after must be at least 1"),
        ({"out_channels": 0}, "out_channels must be at least 1"),
    ],
)
def test_wrong_options_are_named(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CoordinateMLP(**options)


def test_an_encoding_says_how_many_features_it_gives() -> None:
    with pytest.raises(TypeError, match=r"encoding\.out_channels must be an integer; got None"):
        CoordinateMLP(encoding=nn.Identity())


def test_a_sine_needs_a_frequency_above_zero() -> None:
    with pytest.raises(ValueError, match="frequency must be positive; got 0"):
        Sine(frequency=0)
