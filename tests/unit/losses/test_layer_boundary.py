"""The layer-boundary loss against a loop in NumPy, closed forms, and its own edges."""

from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
import torch

from medkit.losses import LayerBoundaryLoss, layer_boundary_loss
from medkit.ops import boundaries_from_probabilities, boundaries_to_mask
from medkit.testing import assert_close

NAN = torch.nan
PENALTIES = {
    "l1": abs,
    "l2": lambda d: d * d,
    "smooth_l1": lambda d: d * d / 1.4 if abs(d) < 0.7 else abs(d) - 0.35,
}


@pytest.fixture
def _unchecked_shapes() -> Iterator[None]:
    """Let wrong types through the annotations, to reach the checks that users have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(shape, generator=generator, dtype=torch.float64)


def annotation(batch: int, lines: int, width: int, height: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(batch, lines, width, generator=generator, dtype=torch.float64) * height
    rows = rows.sort(1).values
    rows[0, 0, 0], rows[-1, :, 1] = NAN, NAN
    return rows


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_loop_over_columns_gives_the_same(penalty: str, reduction: str, weighted: bool) -> None:
    x, target = logits(2, 3, 6, 5), annotation(2, 2, 5, 6)
    mask = torch.rand(2, 6, 5, dtype=torch.float64) * (torch.rand(2, 1, 5) > 0.3)

    value = layer_boundary_loss(
        x,
        target,
        mask=mask if weighted else None,
        penalty=penalty,
        beta=0.7,
        reduction=reduction,
    )

    p = np.exp(x.numpy()) / np.exp(x.numpy()).sum(1, keepdims=True)
    terms, total, number = np.zeros((2, 2, 5)), 0.0, 0.0
    for b, k, column in np.ndindex(2, 2, 5):
        weight = float(mask[b, :, column].min()) if weighted else 1.0
        if bool(target[b, k, column].isnan()):
            continue
        row = sum(float(p[b, c, y, column]) for c in range(k + 1) for y in range(6))
        terms[b, k, column] = weight * PENALTIES[penalty](row - float(target[b, k, column]))
        total, number = total + terms[b, k, column], number + weight
    assert_close(value, {"mean": total / number, "sum": total, "none": terms}[reduction])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_posterior_is_taken_from_the_logits(temperature: float) -> None:
    x, target = logits(2, 3, 6, 5), annotation(2, 2, 5, 6)

    value = layer_boundary_loss(
        x, target, method="posterior", temperature=temperature, penalty="l1", reduction="none"
    )

    rows = boundaries_from_probabilities(x.softmax(1), method="posterior", temperature=temperature)
    assert_close(value, (rows - target).abs().nan_to_num(0))


def test_uniform_probabilities_put_boundaries_at_equal_distances() -> None:
    target = torch.tensor([1.0, 5.0]).reshape(1, 2, 1)

    value = layer_boundary_loss(torch.zeros(1, 3, 9, 1), target, penalty="l1")

    assert_close(value, ((3 - 1) + (6 - 5)) / 2, rtol=1e-6)


@pytest.mark.parametrize("method", ["sum", "posterior"])
def test_perfect_prediction_costs_nothing(method: str) -> None:
    target = annotation(2, 2, 7, 20).round()
    mask = boundaries_to_mask(target.nan_to_num(3.0), height=20)
    x = 60 * torch.nn.functional.one_hot(mask, 3).movedim(-1, 1).double()

    for truth in (target, mask):
        assert float(layer_boundary_loss(x, truth, method=method)) < 1e-12


@pytest.mark.parametrize("options", [{}, {"method": "posterior"}, {"activation": None}])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_gradients_match_finite_differences(penalty: str, options: dict) -> None:
    x = logits(1, 3, 5, 3).softmax(1).requires_grad_()
    target = annotation(1, 2, 3, 5)

    def f(x):
        return layer_boundary_loss(x, target, penalty=penalty, **options)

    assert torch.autograd.gradcheck(f, x)


def test_classes_and_values_per_channel_are_the_rows_where_layers_end() -> None:
    rows = torch.tensor([[[0.0, 2.0, 6.0], [4.0, 2.0, 6.0]]])
    classes = boundaries_to_mask(rows, height=6)
    channels = torch.nn.functional.one_hot(classes, 3).movedim(-1, 1)
    x = logits(1, 3, 6, 3)

    expected = layer_boundary_loss(x, rows)

    for target in (classes, classes.unsqueeze(1), channels, channels.double(), classes.byte()):
        assert_close(layer_boundary_loss(x, target), expected)


def test_columns_with_an_ignored_or_masked_voxel_are_left_out() -> None:
    x, rows = logits(1, 3, 6, 4), annotation(1, 2, 4, 6).nan_to_num(2.0)
    classes = boundaries_to_mask(rows, height=6)
    mask = torch.ones(1, 1, 6, 4, dtype=torch.bool)
    mask[0, 0, 5, 2] = False
    ignored = classes.clone()
    ignored[0, 5, 2] = 9
    unknown = rows.round()
    unknown[..., 2] = NAN
    kept = [0, 1, 3]

    expected = layer_boundary_loss(x[..., kept], rows.round()[..., kept])

    assert_close(layer_boundary_loss(x, unknown), expected)
    assert_close(layer_boundary_loss(x, rows.round(), mask=mask), expected)
    assert_close(layer_boundary_loss(x, classes, mask=mask), expected)
    assert_close(layer_boundary_loss(x, ignored, ignore_index=9), expected)


@pytest.mark.parametrize("method", ["sum", "posterior"])
def test_nan_under_the_mask_has_no_influence(method: str) -> None:
    x, rows = logits(1, 3, 6, 4), annotation(1, 2, 4, 6).nan_to_num(2.0)
    mask = torch.ones(1, 6, 4, dtype=torch.bool)
    mask[..., 1] = False
    broken = x.clone()
    broken[..., 1] = NAN
    broken.requires_grad_()

    value = layer_boundary_loss(broken, rows, mask=mask, method=method)
    value.backward()

    assert_close(value, layer_boundary_loss(x, rows, mask=mask, method=method))
    assert broken.grad is not None
    assert bool(broken.grad.isfinite().all())
    assert bool((broken.grad[..., 1] == 0).all())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_annotated_costs_nothing(reduction: str) -> None:
    x = logits(1, 3, 6, 4).requires_grad_()

    value = layer_boundary_loss(x, torch.full((1, 2, 4), NAN), reduction=reduction)
    value.backward()

    assert value == 0
    assert x.grad is not None
    assert bool((x.grad == 0).all())


@pytest.mark.parametrize("method", ["sum", "posterior"])
def test_slices_of_a_volume_are_scored_one_by_one(method: str) -> None:
    x = logits(2, 3, 4, 6, 5)
    rows = torch.stack([annotation(2, 2, 5, 6, seed=s) for s in range(4)], dim=2)

    value = layer_boundary_loss(x, rows, method=method, reduction="none")

    assert value.shape == (2, 2, 4, 5)
    for d in range(4):
        one = layer_boundary_loss(x[:, :, d], rows[:, :, d], method=method, reduction="none")
        assert_close(value[:, :, d], one)
    whole = boundaries_to_mask(rows.movedim(1, -2), height=6)
    assert whole.shape == (2, 4, 6, 5)
    by_class = layer_boundary_loss(x, whole, ignore_index=255, reduction="none")
    assert by_class.shape == value.shape


@pytest.mark.parametrize("method", ["sum", "posterior"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_in_float32(dtype: torch.dtype, method: str) -> None:
    x = logits(1, 3, 496, 16).to(dtype).requires_grad_()
    rows = annotation(1, 2, 16, 496)

    value = layer_boundary_loss(x, rows, method=method)
    value.backward()

    assert value.dtype == torch.float32
    assert_close(value, layer_boundary_loss(x.double(), rows, method=method), rtol=1e-5)
    assert x.grad is not None
    assert x.grad.dtype == dtype


def test_posterior_keeps_a_gradient_where_softmax_is_saturated() -> None:
    x = torch.tensor([-200.0, 0.0, 0.0, 200.0]).reshape(1, 1, 4, 1)
    x = torch.cat([x, -x], 1).requires_grad_()

    layer_boundary_loss(x, torch.tensor([[[1.0]]]), method="posterior").backward()

    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert float(x.grad[0, 0, 3, 0]) > 0.1


def test_the_class_stores_its_options() -> None:
    x, rows = logits(1, 3, 6, 4).softmax(1), annotation(1, 2, 4, 6)
    options = {
        "activation": None,
        "method": "posterior",
        "temperature": 2.0,
        "penalty": "l2",
        "reduction": "sum",
    }

    assert torch.equal(
        LayerBoundaryLoss(**options)(x, rows), layer_boundary_loss(x, rows, **options)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"target": torch.zeros(1, 2, 5)},
            r"target must be rows .* shape \(1, 3, 6, 4\); got shape",
        ),
        ({"target": torch.zeros(1, 6, 4)}, "target must be rows"),
        ({"target": torch.zeros(1, 2, 6, 4)}, "target must be a class map"),
        ({"target": torch.zeros(1, 5, 4).long()}, "target must be a class map"),
        ({"target": torch.full((1, 6, 4), 3)}, r"target must be in \[0, 3\)"),
        ({"mask": torch.ones(1, 6, 5)}, "mask must be"),
        ({"ignore_index": 4}, "ignore_index must be None for a target of rows"),
        ({"input": torch.zeros(1, 1, 6, 4)}, "with two channels or more"),
        ({"input": torch.zeros(1, 3, 6)}, r"input must be \(batch, channel, \*slices"),
        ({"beta": 0.0}, "beta must be positive"),
        ({"method": "map"}, "method must be one of 'sum', 'posterior'; got 'map'"),
        ({"activation": "sigmoid"}, "activation must be one of 'softmax', None; got 'sigmoid'"),
        ({"penalty": "l3"}, "penalty must be one of"),
        ({"reduction": "avg"}, "reduction must be one of"),
    ],
)
@pytest.mark.usefixtures("_unchecked_shapes")
def test_errors_name_what_is_wrong(change: dict, message: str) -> None:
    arguments = {"input": torch.zeros(1, 3, 6, 4), "target": torch.zeros(1, 2, 4)}

    with pytest.raises(ValueError, match=message):
        layer_boundary_loss(**{**arguments, **change})


@pytest.mark.usefixtures("_unchecked_shapes")
def test_integer_logits_are_refused() -> None:
    with pytest.raises(TypeError, match="input must be floating point"):
        layer_boundary_loss(torch.zeros(1, 3, 6, 4).long(), torch.zeros(1, 2, 4))
