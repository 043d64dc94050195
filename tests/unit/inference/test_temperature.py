"""Calibration finds the minimum that SciPy finds in float64 NumPy, and a closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

from medkit.inference import TemperatureScaling
from medkit.testing import assert_close
from unit.losses.refusals import refuses


def log_softmax(z: np.ndarray) -> np.ndarray:
    top = z - z.max(-1, keepdims=True)
    return top - np.log(np.exp(top).sum(-1, keepdims=True))


def sure_network(classes: int = 4, voxels: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are three times too large for the labels drawn from them."""
    generator = np.random.default_rng(0)
    z = 1.5 * generator.standard_normal((voxels, classes))
    z[:, 1] += 0.5
    p = np.exp(log_softmax(z))
    labels = np.array([generator.choice(classes, p=each) for each in p])
    return 3 * z, labels


def case(z: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Voxels as one image of ten rows."""
    logits = torch.from_numpy(z).movedim(-1, 0).reshape(1, z.shape[1], 10, -1)
    return logits, torch.from_numpy(labels).reshape(1, 10, -1)


@pytest.mark.parametrize(("right", "sure"), [(3, 2.0), (9, 0.5), (2, 4.0)])
def test_two_classes_with_one_confidence_have_a_closed_form(right: int, sure: float) -> None:
    """Right in a share q of equal cases: the best temperature is a / log(q / (1 - q))."""
    total = right + 1
    logits = torch.tensor([[sure] * total, [0.0] * total])[None]
    labels = torch.tensor([[0] * right + [1]])
    scaling = TemperatureScaling(2)
    loss = scaling.fit([(logits, labels)])

    q = right / total
    assert scaling.temperature.item() == pytest.approx(sure / math.log(q / (1 - q)), rel=1e-5)
    assert loss == pytest.approx(-q * math.log(q) - (1 - q) * math.log(1 - q))


def test_temperature_is_the_minimum_that_scipy_finds() -> None:
    z, labels = sure_network()

    def likelihood(log_t: float) -> float:
        return -log_softmax(z / math.exp(log_t))[np.arange(len(z)), labels].mean()

    best = minimize_scalar(likelihood, bounds=(-3, 4), method="bounded", options={"xatol": 1e-9})
    scaling = TemperatureScaling(4)
    loss = scaling.fit([case(z, labels)], voxels_per_case=None)

    assert scaling.temperature.item() == pytest.approx(math.exp(best.x), rel=1e-5)
    assert 2 < scaling.temperature.item() < 4
    assert loss == pytest.approx(best.fun, rel=1e-9)


def test_vector_is_the_minimum_that_scipy_finds() -> None:
    z, labels = sure_network()

    def likelihood(parameters: np.ndarray) -> float:
        scaled = z * np.exp(-parameters[:4]) + parameters[4:]
        return -log_softmax(scaled)[np.arange(len(z)), labels].mean()

    best = minimize(likelihood, np.zeros(8), method="BFGS", options={"gtol": 1e-9})
    scaling = TemperatureScaling(4, scaling="vector")
    loss = scaling.fit([case(z, labels)])

    assert loss == pytest.approx(best.fun, abs=1e-8)
    assert_close(scaling.temperature, np.exp(best.x[:4]).astype(np.float32), rtol=1e-3, atol=0)
    bias = scaling.bias.detach()  # a constant added to all of them changes nothing
    expected = best.x[4:] - best.x[4:].mean()
    assert_close((bias - bias.mean()), expected.astype(np.float32), rtol=0, atol=1e-3)


def test_regions_are_calibrated_with_a_sigmoid() -> None:
    generator = np.random.default_rng(1)
    z = generator.standard_normal((2, 3, 20, 20))
    regions = generator.random(z.shape) < 1 / (1 + np.exp(-z))

    def likelihood(log_t: float) -> float:
        each = np.logaddexp(0, -np.where(regions, 1, -1) * 4 * z / math.exp(log_t))
        return each.mean()

    best = minimize_scalar(likelihood, bounds=(-3, 4), method="bounded", options={"xatol": 1e-9})
    scaling = TemperatureScaling(3, activation="sigmoid")
    loss = scaling.fit([(torch.from_numpy(4 * z), torch.from_numpy(regions))])

    assert scaling.temperature.item() == pytest.approx(math.exp(best.x), rel=1e-5)
    assert loss == pytest.approx(best.fun, rel=1e-9)


def test_class_map_of_a_sigmoid_says_which_channel() -> None:
    logits = torch.randn(2, 1, 8, 8)
    labels = torch.rand(2, 8, 8) < torch.sigmoid(logits[:, 0] / 3)
    by_map, by_channel = (TemperatureScaling(1, activation="sigmoid") for _ in range(2))

    first = by_map.fit([(logits, labels.long())])
    second = by_channel.fit([(logits, labels[:, None].float())])

    assert first == pytest.approx(second)
    assert torch.equal(by_map.temperature, by_channel.temperature)
    several = TemperatureScaling(3, activation="sigmoid")
    z = torch.randn(1, 3, 50)
    drawn = torch.distributions.Categorical(probs=torch.sigmoid(z).movedim(1, -1)).sample()
    one_hot = torch.nn.functional.one_hot(drawn, 3).movedim(-1, 1)
    assert several.fit([(z, drawn)]) == pytest.approx(several.fit([(z, one_hot)]))


def test_labels_stay_as_they_are() -> None:
    z, labels = sure_network()
    logits, target = case(z, labels)
    scaling = TemperatureScaling(4)
    assert torch.equal(scaling(logits), logits)
    scaling.fit([(logits, target)])

    assert torch.equal(scaling(logits).argmax(1), logits.argmax(1))
    assert scaling(logits.float()).dtype == torch.float32


def test_ignored_voxels_have_no_say() -> None:
    z, labels = sure_network()
    logits, target = case(z, labels)
    wrong = torch.full_like(target, 255)
    wild = torch.cat([logits, 100 * torch.randn_like(logits)], dim=-1)
    plain, ignoring = TemperatureScaling(4), TemperatureScaling(4)

    plain.fit([(logits, target)])
    ignoring.fit([(wild, torch.cat([target, wrong], -1)[:, None])], ignore_index=255)

    assert torch.equal(plain.temperature, ignoring.temperature)


def test_draws_are_of_the_number_asked_for_and_repeat() -> None:
    z, labels = sure_network(voxels=5000)
    pairs = [case(z[i::5], labels[i::5]) for i in range(5)]

    def fitted(seed: int, number: int | None) -> float:
        scaling = TemperatureScaling(4)
        generator = torch.Generator().manual_seed(seed)
        scaling.fit(pairs, voxels_per_case=number, generator=generator)
        return scaling.temperature.item()

    assert fitted(0, 300) == fitted(0, 300)
    assert fitted(0, 300) != fitted(1, 300)
    assert fitted(0, 1000) == fitted(1, None)  # all of them
    assert fitted(0, 300) == pytest.approx(fitted(0, None), rel=0.15)


def test_calibration_is_saved_with_the_module() -> None:
    z, labels = sure_network()
    scaling, other = (
        TemperatureScaling(4, scaling="vector"),
        TemperatureScaling(4, scaling="vector"),
    )
    scaling.fit([case(z, labels)])
    other.load_state_dict(scaling.state_dict())

    logits = case(z, labels)[0]
    assert torch.equal(other(logits), scaling(logits))
    assert "scaling='vector'" in repr(scaling)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (torch.zeros(1, 5).long(), {}, r"target must be of shape \(1, 4\)"),
        (torch.full((1, 4), 2), {}, r"target must be of labels in \[0, 2\); got labels 2 to 2"),
        (torch.full((1, 4), 7), {"ignore_index": 7}, "at least one voxel that counts"),
        (torch.zeros(1, 4).long(), {"voxels_per_case": 0}, "voxels_per_case must be at least 1"),
    ],
)
def test_bad_cases_are_refused(target: Tensor, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TemperatureScaling(2).fit([(torch.zeros(1, 2, 4), target)], **options)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 2 for a softmax"):
        TemperatureScaling(1)
    with refuses("scaling"):
        TemperatureScaling(2, scaling="matrix")
    with pytest.raises(ValueError, match=r"logits must be \(batch, 2, \*spatial\)"):
        TemperatureScaling(2)(torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="ignore_index must be None for values per channel"):
        TemperatureScaling(2, activation="sigmoid").fit(
            [(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))], ignore_index=1
        )


def test_what_is_no_number_or_no_class_is_refused() -> None:
    logits, target = torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.int64)
    for bad in (math.nan, -math.inf):
        with pytest.raises(ValueError, match="logits must be finite"):
            TemperatureScaling(2).fit([(torch.full_like(logits, bad), target)])
    with pytest.raises(TypeError, match=r"class map of integers; got torch\.float32"):
        TemperatureScaling(2).fit([(logits, target + 0.5)])


def test_fits_in_inference_mode() -> None:
    logits = torch.tensor([[[4.0, 4.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0]]])
    target = torch.tensor([[0, 0, 0, 1]])
    scaling, inside = TemperatureScaling(2), TemperatureScaling(2)
    scaling.fit([(logits, target)])
    with torch.inference_mode():
        inside.fit([(logits.clone(), target.clone())])

    assert torch.equal(inside.log_temperature, scaling.log_temperature)
    assert scaling.temperature.item() == pytest.approx(4 / math.log(3))  # right in 3 of 4
