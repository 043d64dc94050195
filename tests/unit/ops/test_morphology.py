"""Soft morphology against clDice's own numbers, MONAI, and loops over voxels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medkit.ops import soft_dilate, soft_erode, soft_open, soft_skeletonize
from medkit.testing import assert_close
from unit.ops import skeleton_oracle

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "soft_skel" / "soft_skel.npz")
STEPS = (soft_erode, soft_dilate, soft_open)
SHAPES = ((2, 3, 9, 11, 12), (2, 2, 20, 17), (1, 1, 1, 5, 6), (1, 2, 2, 1))


def _gradient(function: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> Tensor:
    leaf = x.detach().clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf, weight)[0]


# Values and gradients of others


@pytest.mark.parametrize("key", [key for key in GOLDEN.files if "skel" in key])
def test_skeletons_are_those_of_cldice(key: str) -> None:
    name, iterations = key.split("/skel")
    x = torch.from_numpy(GOLDEN[f"{name}/in"])[None, None]

    skeleton = soft_skeletonize(x, iterations=int(iterations))

    assert torch.equal(skeleton[0, 0], torch.from_numpy(GOLDEN[key]))


@pytest.mark.parametrize("key", [k for k in GOLDEN.files if k.startswith(("tube/s", "border/s"))])
def test_masks_have_the_skeletons_of_probabilities(key: str) -> None:
    name, iterations = key.split("/skel")
    mask = torch.from_numpy(GOLDEN[f"{name}/in"])[None, None] > 0

    skeleton = soft_skeletonize(mask, iterations=int(iterations))

    assert skeleton.dtype == torch.bool
    assert torch.equal(skeleton[0, 0].float(), torch.from_numpy(GOLDEN[key]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", STEPS)
def test_steps_equal_monai(step: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    cldice = pytest.importorskip("monai.losses.cldice")
    peer = getattr(cldice, step.__name__)
    x, weight = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)

    assert torch.equal(step(x), peer(x))
    assert_close(_gradient(step, x, weight), _gradient(peer, x, weight))


@pytest.mark.parametrize("iterations", [0, 1, 3, 10, 50])
@pytest.mark.parametrize("shape", SHAPES)
def test_skeletons_equal_monai(shape: tuple[int, ...], iterations: int) -> None:
    cldice = pytest.importorskip("monai.losses.cldice")
    x, weight = torch.rand(shape), torch.randn(shape)

    def ours(x: Tensor) -> Tensor:
        return soft_skeletonize(x, iterations=iterations)

    def peer(x: Tensor) -> Tensor:
        return cldice.soft_skel(x, iterations)

    assert torch.equal(ours(x), peer(x))
    assert_close(
        _gradient(ours, x.double(), weight.double()), _gradient(peer, x.double(), weight.double())
    )
    assert_close(_gradient(ours, x, weight), _gradient(peer, x, weight), rtol=1e-5, atol=5e-6)


def test_values_outside_zero_and_one_equal_monai() -> None:
    cldice = pytest.importorskip("monai.losses.cldice")
    x = 3 * torch.randn(1, 1, 12, 12, 12, dtype=torch.float64)
    weight = torch.randn_like(x)

    assert torch.equal(soft_skeletonize(x), cldice.soft_skel(x, 10))
    assert_close(
        _gradient(soft_skeletonize, x, weight),
        _gradient(lambda x: cldice.soft_skel(x, 10), x, weight),
    )


# Loops over voxels


@pytest.mark.parametrize("levels", [2, 3, 5, 10_000])
@pytest.mark.parametrize("shape", [(5, 6, 7), (9, 8)])
def test_skeleton_and_gradient_equal_loops(shape: tuple[int, ...], levels: int) -> None:
    rng = np.random.default_rng(levels)
    x = rng.integers(0, levels, shape) / (levels - 1)  # 2, 3 and 5 values tie nearly everywhere
    weight = rng.standard_normal(shape)
    expected = skeleton_oracle.skeleton(x, 3, weight)

    leaf = torch.from_numpy(x)[None, None].requires_grad_()
    found = soft_skeletonize(leaf, iterations=3)
    gradient = torch.autograd.grad(found, leaf, torch.from_numpy(weight)[None, None])[0]

    assert_close(found[0, 0], expected[0])
    assert_close(gradient[0, 0], expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_go_where_the_loops_send_them_in_any_precision(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(8)
    x = rng.integers(-2, 3, (6, 5, 4)) / 4
    weight = rng.integers(-4, 5, x.shape)
    expected = skeleton_oracle.skeleton(x, 2, weight)[1]

    gradient = _gradient(
        lambda x: soft_skeletonize(x, iterations=2),
        torch.from_numpy(x)[None, None].to(dtype),
        torch.from_numpy(weight)[None, None].to(dtype),
    )

    assert_close(gradient[0, 0].double(), expected)


def test_masked_skeleton_and_gradient_equal_loops() -> None:
    rng = np.random.default_rng(3)
    x, inside = rng.random((5, 6, 7)), rng.random((5, 6, 7)) < 0.7
    weight = rng.standard_normal(x.shape)
    expected = skeleton_oracle.skeleton(x, 3, weight, inside)

    leaf = torch.from_numpy(x)[None, None].requires_grad_()
    mask = torch.from_numpy(inside)[None]
    found = soft_skeletonize(leaf, iterations=3, mask=mask)
    gradient = torch.autograd.grad(found, leaf, torch.from_numpy(weight)[None, None])[0]

    assert_close(found[0, 0], expected[0])
    assert_close(gradient[0, 0], expected[1])


# Differentiation


@pytest.mark.parametrize(
    "function", [*STEPS, soft_skeletonize, lambda x: soft_skeletonize(x, mask=_some(x))]
)
def test_gradients_are_exact_also_the_second(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(1, 2, 4, 5, 3, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


def _some(x: Tensor) -> Tensor:
    return torch.rand(x.shape[0], *x.shape[2:], generator=torch.Generator().manual_seed(1)) < 0.8


def test_certain_voxels_keep_a_finite_gradient() -> None:
    x = torch.from_numpy(GOLDEN["tube/in"])[None, None]

    gradient = _gradient(soft_skeletonize, x, torch.ones_like(x))

    assert gradient.isfinite().all()
    assert gradient.any()


def test_a_target_without_gradient_keeps_nothing() -> None:
    skeleton = soft_skeletonize(torch.rand(1, 1, 8, 8))

    assert not skeleton.requires_grad
    assert skeleton.grad_fn is None


# Memory


def test_saved_bytes_do_not_grow_with_iterations() -> None:
    voxels = 16**3
    saved = {
        iterations: _saved_bytes(lambda x, n=iterations: soft_skeletonize(x, iterations=n), 16)
        for iterations in (0, 10, 50)
    }

    assert set(saved.values()) == {8 * voxels}


def test_saved_bytes_are_a_hundredth_of_those_of_monai() -> None:
    cldice = pytest.importorskip("monai.losses.cldice")

    theirs = _saved_bytes(lambda x: cldice.soft_skel(x, 10), 16)
    ours = _saved_bytes(lambda x: soft_skeletonize(x, iterations=10), 16)

    assert theirs / 16**3 == pytest.approx(1344, abs=10)  # 64 + 128 per iteration
    assert ours * 100 < theirs


def _saved_bytes(function: Callable[[Tensor], Tensor], edge: int) -> int:
    """Return the size of all storages kept for the backward pass, the input's included."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.rand(1, 1, edge, edge, edge, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        function(x)
    return sum(storages.values())


def test_the_loop_ends_when_nothing_is_left_to_erode() -> None:
    x = torch.rand(1, 1, 6, 6, requires_grad=True)

    skeleton = soft_skeletonize(x, iterations=10**12)  # 10**12 erosions would take for ever
    skeleton.sum().backward()

    assert torch.equal(skeleton, soft_skeletonize(x, iterations=12))
    assert soft_skeletonize(x > 2, iterations=10**12).sum() == 0


def test_groups_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.rand(2, 3, 6, 7, 8), torch.rand(2, 3, 6, 7, 8)
    functions = (*STEPS, soft_skeletonize, lambda x: soft_skeletonize(x, mask=_some(x)))
    whole = [(f(x), f(x > 0.5), _gradient(f, x, weight)) for f in functions]

    monkeypatch.setattr("medkit.ops._morphology.CPU_ELEMENTS", 2 * 6 * 7 * 8)

    for f, results in zip(functions, whole, strict=True):
        parts = (f(x), f(x > 0.5), _gradient(f, x, weight))
        assert all(torch.equal(p, w) for p, w in zip(parts, results, strict=True))


# Precision and layout


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", [*STEPS, soft_skeletonize])
def test_half_precision_is_rounded_once(
    function: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    x, weight = torch.rand(2, 1, 9, 8, 7).to(dtype), torch.rand(2, 1, 9, 8, 7).to(dtype)

    found, expected = function(x), function(x.float())

    assert found.dtype == dtype
    assert torch.equal(found, expected.to(dtype))
    assert torch.equal(
        _gradient(function, x, weight), _gradient(function, x.float(), weight.float()).to(dtype)
    )


@pytest.mark.parametrize("function", [*STEPS, soft_skeletonize])
def test_strides_change_nothing_and_the_input_is_left_alone(
    function: Callable[[Tensor], Tensor],
) -> None:
    x = torch.rand(2, 3, 6, 7, 8).transpose(1, -1)
    before, weight = x.clone(), torch.rand(x.shape).transpose(2, 3).contiguous().transpose(2, 3)

    assert torch.equal(function(x), function(x.contiguous()))
    assert torch.equal(_gradient(function, x, weight), _gradient(function, x.contiguous(), weight))
    assert torch.equal(function(x > 0.5), function(x.contiguous() > 0.5))
    assert torch.equal(x, before)


@pytest.mark.parametrize("function", [*STEPS, soft_skeletonize])
def test_shapes_are_known_without_values(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(2, 3, 6, 7, device="meta")

    assert function(x).shape == x.shape
    assert function(torch.rand(0, 3, 6, 7)).shape == (0, 3, 6, 7)


# Laws

images = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4), st.integers(0, 99)).map(
    lambda n: torch.rand(1, 1, *n[:3], generator=torch.Generator().manual_seed(n[3]))
)


@given(x=images, order=st.permutations([2, 3, 4]), axis=st.integers(2, 4))
def test_axes_may_be_exchanged_and_reversed(x: Tensor, order: list[int], axis: int) -> None:
    for function in (*STEPS, soft_skeletonize):
        turned = function(x.permute(0, 1, *order).flip(axis))

        assert torch.equal(turned, function(x).permute(0, 1, *order).flip(axis))


@given(x=images, more=st.floats(0, 1))
def test_steps_keep_the_order_of_images(x: Tensor, more: float) -> None:
    above = x + more * torch.rand(x.shape, generator=torch.Generator().manual_seed(5))

    assert (soft_erode(x) <= x).all()
    assert (soft_dilate(x) >= x).all()
    for step in STEPS:
        assert (step(x) <= step(above)).all()
        assert torch.equal(step(x.exp()), step(x).exp())  # they choose voxels by order alone


@given(x=images, iterations=st.integers(0, 6))
def test_skeleton_lies_inside_the_structure_and_grows(x: Tensor, iterations: int) -> None:
    fewer, more = (soft_skeletonize(x, iterations=n) for n in (iterations, iterations + 1))

    assert (fewer >= 0).all()
    assert (more >= fewer).all()
    assert (more <= x + 1e-6).all()


@given(x=images, kept=st.integers(1, 5))
def test_masked_voxels_are_as_if_cropped_away(x: Tensor, kept: int) -> None:
    mask = torch.zeros(1, *x.shape[2:], dtype=torch.bool)
    mask[:, :kept] = True

    for image in (x, x > 0.5):
        found = soft_skeletonize(image, mask=mask)

        assert torch.equal(found[:, :, :kept], soft_skeletonize(image[:, :, :kept]))
        assert not found[:, :, kept:].any()


def test_values_under_the_mask_have_no_influence() -> None:
    x, weight = torch.rand(2, 2, 6, 7, 8), torch.rand(2, 2, 6, 7, 8)
    mask = torch.rand(2, 1, 6, 7, 8) < 0.7

    def masked(x: Tensor) -> Tensor:
        return soft_skeletonize(x, mask=mask)

    for value in (torch.nan, torch.inf, -torch.inf, 7.0):
        other = torch.where(mask, x, value)
        gradient = _gradient(masked, other, weight)

        assert torch.equal(masked(other), masked(x))
        assert torch.equal(gradient, _gradient(masked, x, weight))
        assert not gradient[~mask.expand_as(x)].any()


def test_nan_is_not_hidden() -> None:
    x = torch.rand(1, 1, 5, 5)
    x[..., 2, 2] = torch.nan

    assert soft_skeletonize(x)[..., 2, 2].isnan().all()
    assert soft_erode(x)[..., 2, 1].isnan().all()


# Errors


@pytest.mark.parametrize("function", [*STEPS, soft_skeletonize])
def test_bad_images_are_named(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(TypeError, match=r"x must be floating point or boolean; got torch\.int64"):
        function(torch.ones(1, 1, 3, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"x must be .* two or three spatial axes"):
        function(torch.ones(1, 3, 3))
    with pytest.raises(ValueError, match=r"x must be .* none of them empty"):
        function(torch.ones(1, 1, 3, 0))


def test_bad_options_are_named() -> None:
    x = torch.ones(2, 1, 3, 4)

    with pytest.raises(ValueError, match="iterations must be at least 0; got -1"):
        soft_skeletonize(x, iterations=-1)
    with pytest.raises(TypeError, match=r"mask must be boolean"):
        soft_skeletonize(x, mask=torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match=r"mask must be .* x of shape"):
        soft_skeletonize(x, mask=torch.ones(2, 4, 3, dtype=torch.bool))
