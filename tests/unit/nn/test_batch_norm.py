"""Batch normalisation remembers what Keras remembers, and folds into the layer before it."""

import numpy as np
import pytest
import torch
from torch import nn

from medkit.nn._batch_norm import (
    BiasedBatchNorm2d,
    BiasedBatchNorm3d,
    evaluation_affine,
    make_batch_norm,
)
from medkit.nn._segformer_profile import numerics
from medkit.testing import assert_close


@pytest.mark.parametrize(
    ("kind", "shape"), [(BiasedBatchNorm3d, (2, 3, 2, 3, 4)), (BiasedBatchNorm2d, (2, 3, 4, 5))]
)
def test_running_statistics_are_those_of_keras(
    kind: type[BiasedBatchNorm3d], shape: tuple[int, ...]
) -> None:
    """moving = 0.99 * moving + 0.01 * batch, with the variance of the batch divided by n."""
    norm = kind(3, momentum=0.01, dtype=torch.float64)
    mean, variance = np.zeros(3), np.ones(3)
    axes = (0, *range(2, len(shape)))

    for _ in range(5):
        x = 3 * torch.randn(shape, dtype=torch.float64) + 1
        norm(x)
        mean = 0.99 * mean + 0.01 * x.numpy().mean(axes)
        variance = 0.99 * variance + 0.01 * x.numpy().var(axes)

    assert_close(norm.running_mean, mean)
    assert_close(norm.running_var, variance)
    assert norm.num_batches_tracked == 5


def test_output_and_gradients_are_those_of_batch_norm() -> None:
    ours, theirs = (kind(3, dtype=torch.float64) for kind in (BiasedBatchNorm3d, nn.BatchNorm3d))
    x = torch.randn(2, 3, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 2, 3, 4, dtype=torch.float64)

    found, expected = (
        torch.autograd.grad((norm(x) * weight).sum(), [x, *norm.parameters()])
        for norm in (ours, theirs)
    )

    for a, b in zip(found, expected, strict=True):
        assert_close(a, b)


def test_evaluation_and_batches_without_statistics_are_those_of_batch_norm() -> None:
    x = torch.randn(2, 3, 2, 3, 4)
    ours, theirs = BiasedBatchNorm3d(3).eval(), nn.BatchNorm3d(3).eval()
    assert torch.equal(ours(x), theirs(x))

    forgetful = BiasedBatchNorm3d(3, track_running_stats=False)
    assert torch.equal(forgetful(x), nn.BatchNorm3d(3)(x))


def test_a_cumulative_average_is_refused() -> None:
    with pytest.raises(ValueError, match="momentum must be a number"):
        BiasedBatchNorm3d(3, momentum=None)(torch.randn(2, 3, 2, 2, 2))


@pytest.mark.parametrize(("spatial_dims", "kind"), [(2, nn.BatchNorm2d), (3, nn.BatchNorm3d)])
def test_profiles_choose_the_kind(spatial_dims: int, kind: type[nn.Module]) -> None:
    published, medicai = (
        make_batch_norm(4, spatial_dims=spatial_dims, numerics=numerics(profile))
        for profile in ("segformer3d", "medicai")
    )

    assert type(published) is kind
    assert isinstance(medicai, kind)
    assert type(medicai) is not kind
    assert (medicai.eps, medicai.momentum) == (1e-3, 0.01)


def settled(norm: nn.Module) -> nn.Module:
    for tensor in (*norm.parameters(), norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm.eval()


@pytest.mark.parametrize("kind", [nn.BatchNorm3d, nn.SyncBatchNorm, BiasedBatchNorm3d])
def test_affine_is_what_the_layer_does_in_evaluation(kind: type[nn.Module]) -> None:
    norm = settled(kind(3, dtype=torch.float64))
    x = torch.randn(2, 3, 2, 3, 4, dtype=torch.float64)

    affine = evaluation_affine(norm)

    assert affine is not None
    assert_close(x * affine.scale[:, None, None, None] + affine.shift[:, None, None, None], norm(x))


def test_affine_of_half_precision_is_computed_in_float32() -> None:
    affine = evaluation_affine(settled(nn.BatchNorm3d(3, dtype=torch.bfloat16)))

    assert affine is not None
    assert affine.scale.dtype == affine.shift.dtype == torch.float32


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm3d(3).train(),
        nn.GroupNorm(1, 3).eval(),
        nn.BatchNorm3d(3, track_running_stats=False).eval(),
        nn.BatchNorm3d(3, affine=False).eval(),
    ],
    ids=["training", "another norm", "no statistics", "no parameters"],
)
def test_there_is_no_affine_where_it_is_not_fixed(norm: nn.Module) -> None:
    assert evaluation_affine(norm) is None


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_a_layer_with_hooks_is_not_folded(register: str) -> None:
    norm = nn.BatchNorm3d(3).eval()
    handle = getattr(norm, register)(lambda *_: None)
    assert evaluation_affine(norm) is None

    handle.remove()
    assert evaluation_affine(norm) is not None
