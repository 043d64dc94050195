"""Test-time augmentation: the mean over views, as a plain NumPy loop takes it."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medkit import inference
from medkit.inference import View, flip_views, sliding_window_inference, turn_views
from medkit.testing import assert_close
from unit.losses.refusals import refuses


def lopsided(x: Tensor) -> Tensor:
    """Three classes from places that have a direction."""
    down = torch.linspace(-1, 1, x.shape[2], dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 3))
    return torch.cat([x + down, x * down, x.roll(1, -1)], dim=1)


def lopsided_in_numpy(x: np.ndarray) -> np.ndarray:
    down = np.linspace(-1, 1, x.shape[2]).reshape(-1, *[1] * (x.ndim - 3))
    return np.concatenate([x + down, x * down, np.roll(x, 1, -1)], axis=1)


def softmax(z: np.ndarray) -> np.ndarray:
    odds = np.exp(z - z.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


@pytest.mark.parametrize("shape", [(2, 1, 6, 5), (1, 1, 4, 5, 6)])
@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_default_is_the_mean_over_all_flips(shape: tuple[int, ...], average: str) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    axes = range(2, len(shape))
    seen = []
    for number in range(len(shape) - 1):
        for flip in itertools.combinations(axes, number):
            z = np.flip(lopsided_in_numpy(np.flip(x, flip)), flip)
            seen.append(z if average == "logits" else softmax(z))
    ours = inference.test_time_augmentation(torch.from_numpy(x), lopsided, average=average)

    assert len(seen) == 2 ** (len(shape) - 2)
    assert_close(ours, np.mean(seen, axis=0))


def test_views_of_the_surface_pipeline() -> None:
    x = np.random.default_rng(1).standard_normal((1, 1, 3, 4, 4))
    views = [View(), *(View(flip=(a,)) for a in range(3)), *(View(turns=k) for k in (1, 2, 3))]
    seen = [lopsided_in_numpy(x)]
    seen += [np.flip(lopsided_in_numpy(np.flip(x, a)), a) for a in (2, 3, 4)]
    for k in (1, 2, 3):
        turned = lopsided_in_numpy(np.rot90(x, k, (3, 4)))
        seen.append(np.rot90(turned, -k, (3, 4)))
    ours = inference.test_time_augmentation(torch.from_numpy(x), lopsided, views=views)

    assert_close(ours, np.mean(seen, axis=0))


def resized(x: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Interpolate one axis after the other between the centres of voxels."""
    for axis, n in enumerate(size, 2):
        places = (np.arange(n) + 0.5) * x.shape[axis] / n - 0.5
        old = np.arange(x.shape[axis])
        x = np.apply_along_axis(lambda row, p=places, o=old: np.interp(p, o, row), axis, x)
    return x


def test_several_scales_are_averaged_on_the_grid_of_the_volume() -> None:
    x = np.random.default_rng(2).standard_normal((1, 1, 6, 8, 4))
    small, large = (
        resized(lopsided_in_numpy(resized(x, size)), x.shape[2:])
        for size in ((3, 4, 2), (9, 12, 6))
    )
    views = [View(), View(scale=0.5), View(scale=1.5)]
    ours = inference.test_time_augmentation(torch.from_numpy(x), lopsided, views=views)

    assert_close(ours, (lopsided_in_numpy(x) + small + large) / 3)


def test_mirrored_sides_are_swapped() -> None:
    right_of_centre = torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]])

    def sides(x: Tensor) -> Tensor:  # a network that only knows the side in the image
        left = torch.tensor([1.0, 1.0, 0.0, 0.0])
        return torch.cat([0 * x, x * 0 + left, x * 0 + left.flip(0)], dim=1)

    views = [View(), View(flip=(1,), swap=((1, 2),))]
    ours = inference.test_time_augmentation(right_of_centre, sides, views=views)

    assert torch.equal(ours, sides(right_of_centre))


def test_network_without_preferred_direction_gains_nothing() -> None:
    network = nn.Conv2d(1, 2, 3, padding=1).double()
    with torch.no_grad():
        symmetric = sum(view.apply(network.weight) for view in turn_views(mirrored=True)) / 8
        network.weight.copy_(symmetric)
    x = torch.randn(1, 1, 9, 9, dtype=torch.float64)

    views = turn_views(mirrored=True)
    ours = inference.test_time_augmentation(x, network, views=views)

    assert_close(ours, network(x).detach())


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_several_views_in_a_call_change_nothing(batch_size: int) -> None:
    x, calls = torch.randn(2, 1, 6, 6), []

    def counting(windows: Tensor) -> Tensor:
        calls.append(len(windows))
        return lopsided(windows)

    one_by_one = inference.test_time_augmentation(x, lopsided)
    together = inference.test_time_augmentation(x, counting, batch_size=batch_size)

    assert torch.equal(together, one_by_one)
    assert calls == [2 * min(batch_size, 4 - start) for start in range(0, 4, batch_size)]


def test_views_of_different_shape_go_one_by_one() -> None:
    x = torch.randn(1, 1, 4, 6)

    together = inference.test_time_augmentation(x, lopsided, views=turn_views(), batch_size=4)

    assert torch.equal(together, inference.test_time_augmentation(x, lopsided, views=turn_views()))


def test_windows_go_with_views() -> None:
    x = torch.randn(1, 1, 20, 24)

    def by_windows(volume: Tensor) -> Tensor:
        return sliding_window_inference(volume, nn.Identity(), roi_size=8)

    assert_close(inference.test_time_augmentation(x, by_windows), x, rtol=1e-6, atol=1e-6)


def test_half_precision_is_summed_in_float32() -> None:
    x = torch.full((1, 1, 2, 2), 1000.0)
    views = [View()] * 70

    ours = inference.test_time_augmentation(x, lambda v: v.half(), views=views)

    assert ours.dtype == torch.float32
    assert torch.equal(ours, x)


@pytest.mark.parametrize(
    ("predictor", "error", "message"),
    [
        (lambda x: x[..., :-1], ValueError, r"of shape \(1, any, 4, 4\), as its input"),
        (lambda x: x.argmax(1, keepdim=True), TypeError, "floating-point tensor; got torch.int64"),
        (lambda x: [x], TypeError, "one floating-point tensor; got list"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    predictor: Callable[[Tensor], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        inference.test_time_augmentation(torch.zeros(1, 1, 4, 4), predictor)


def test_bad_options_are_refused() -> None:
    x = torch.zeros(1, 1, 4, 4)

    with pytest.raises(ValueError, match="views must be at least one view"):
        inference.test_time_augmentation(x, lopsided, views=[])
    with refuses("average"):
        inference.test_time_augmentation(x, lopsided, average="median")
    with refuses("inputs"):
        inference.test_time_augmentation(x[0, 0], lopsided)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        inference.test_time_augmentation(x, lopsided, views=flip_views((0,)), batch_size=0)
