"""DropPath drops whole samples, keeps the mean, and is absent in evaluation."""

import pytest
import torch

from medkit.nn import DropPath
from medkit.testing import assert_close


def test_samples_are_dropped_whole_and_the_others_rescaled() -> None:
    x = torch.rand(64, 3, 5) + 1

    y = DropPath(0.25).train()(x)

    kept = (y != 0).flatten(1).all(1)
    assert not y[~kept].any()
    assert_close(y[kept], x[kept] / 0.75)


def test_the_share_of_dropped_samples_is_the_rate() -> None:
    samples = 20_000

    dropped = (DropPath(0.3).train()(torch.ones(samples, 1)) == 0).double().mean()

    four_deviations = 4 * (0.3 * 0.7 / samples) ** 0.5
    assert_close(dropped, 0.3, atol=four_deviations)


def test_samples_are_dropped_independently() -> None:
    drop_path = DropPath(0.5).train()

    outcomes = {tuple(drop_path(torch.ones(3)).tolist()) for _ in range(200)}

    assert len(outcomes) == 8


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.9, False)])
def test_the_input_comes_back_itself_where_nothing_is_dropped(rate: float, training: bool) -> None:
    x = torch.randn(4, 2)

    assert DropPath(rate).train(training)(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate must be"):
        DropPath(rate)


def test_repr_shows_the_rate() -> None:
    assert repr(DropPath(0.125)) == "DropPath(rate=0.125)"
