"""Which targets and masks go with which input, and what is said of the others."""

import pytest
import torch
from torch import Tensor

from medkit.losses import cross_entropy_loss, dice_loss
from medkit.testing import assert_close
from unit.losses.refusals import refuses

LOSSES = pytest.mark.parametrize("loss", [dice_loss, cross_entropy_loss])
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, 3, 4, 5, generator=GENERATOR)
LABELS = torch.randint(0, 3, (2, 4, 5), generator=GENERATOR)


@LOSSES
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_class_maps_may_have_any_integer_type_and_a_channel_axis(loss, dtype: torch.dtype) -> None:
    plain = loss(LOGITS, LABELS)

    assert torch.equal(loss(LOGITS, LABELS.to(dtype)), plain)
    assert torch.equal(loss(LOGITS, LABELS[:, None].to(dtype)), plain)


@LOSSES
def test_two_classes_may_be_a_boolean_map(loss) -> None:
    foreground = LABELS > 0

    assert torch.equal(loss(LOGITS[:, :2], foreground), loss(LOGITS[:, :2], foreground.long()))


@LOSSES
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16])
def test_values_per_channel_may_have_any_type(loss, dtype: torch.dtype) -> None:
    regions = torch.rand(2, 3, 4, 5) < 0.4

    actual = loss(LOGITS, regions.to(dtype), activation="sigmoid")

    assert torch.equal(actual, loss(LOGITS, regions.float(), activation="sigmoid"))


@LOSSES
@pytest.mark.parametrize("ignored", [255, -1, 7])
def test_one_channel_takes_a_map_of_one_and_zero(loss, ignored: int) -> None:
    labels = (LABELS > 0).long()
    values = labels[:, None].float()
    options = {"activation": "sigmoid", "ignore_index": ignored}

    for form in (labels, labels[:, None], labels.bool()):
        assert_close(
            loss(LOGITS[:, :1], form, **options), loss(LOGITS[:, :1], values, activation="sigmoid")
        )


@LOSSES
def test_no_spatial_axes_are_a_classification(loss) -> None:
    assert_close(
        loss(LOGITS[:, :, 0, 0], LABELS[:, 0, 0]), loss(LOGITS[:, :, :1, 0], LABELS[:, :1, 0])
    )


@LOSSES
def test_channels_last_memory_gives_the_same(loss) -> None:
    logits = torch.randn(2, 3, 4, 5, 6)
    labels = torch.randint(0, 3, (2, 4, 5, 6))
    turned = logits.to(memory_format=torch.channels_last_3d).requires_grad_()

    value = loss(turned, labels)
    value.backward()

    assert_close(value.detach(), loss(logits, labels))
    assert turned.grad.stride() == turned.stride()


@LOSSES
@pytest.mark.parametrize("label", [3, -1, 255])
def test_a_label_that_is_no_class_is_refused(loss, label: int) -> None:
    labels = LABELS.clone()
    labels[0, 0, 0] = label

    with refuses("target"):
        loss(LOGITS, labels)
    with refuses("target"):
        loss(LOGITS, labels, ignore_index=99)


@LOSSES
def test_a_label_under_the_mask_may_be_anything(loss) -> None:
    labels, mask = LABELS.clone(), torch.ones_like(LABELS, dtype=torch.bool)
    labels[0, 0, 0], mask[0, 0, 0] = 200, False

    assert torch.equal(loss(LOGITS, labels, mask=mask), loss(LOGITS, LABELS, mask=mask))


@LOSSES
def test_a_value_under_the_mask_may_be_anything(loss) -> None:
    values, mask = torch.rand(2, 3, 4, 5), torch.ones(2, 4, 5)
    mask[0, 0, 0] = 0
    for filler in (255.0, float("nan")):
        marked = values.clone()
        marked[0, :, 0, 0] = filler

        assert torch.equal(loss(LOGITS, marked, mask=mask), loss(LOGITS, values, mask=mask))


@LOSSES
@pytest.mark.parametrize("value", [1.5, -0.5, 255.0, float("nan")])
def test_values_per_channel_outside_zero_to_one_are_refused(loss, value: float) -> None:
    target = torch.rand(2, 3, 4, 5)
    target[0, 0, 0, 0] = value

    with refuses("target"):
        loss(LOGITS, target)


@LOSSES
@pytest.mark.parametrize(
    "target",
    [
        pytest.param(LABELS.float(), id="map of floats"),
        pytest.param(LABELS[:, None].float(), id="map of floats with a channel"),
        pytest.param(LABELS[:, :3], id="too short"),
        pytest.param(torch.rand(2, 2, 4, 5), id="two channels"),
        pytest.param(LABELS[:1], id="too few samples"),
        pytest.param(torch.rand(2, 3, 4, 5, dtype=torch.complex64), id="complex"),
    ],
)
def test_targets_that_do_not_fit_are_refused(loss, target: Tensor) -> None:
    with refuses("target"):
        loss(LOGITS, target)


@LOSSES
@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(torch.ones(2, 4, 5, dtype=torch.long), id="integers"),
        pytest.param(torch.ones(2, 3, 4, 5), id="per channel"),
        pytest.param(torch.ones(2, 4, 4), id="too short"),
        pytest.param(-torch.ones(2, 4, 5), id="negative"),
        pytest.param(torch.full((2, 4, 5), torch.nan), id="nan"),
        pytest.param(torch.full((2, 4, 5), torch.inf), id="infinite"),
    ],
)
def test_masks_that_do_not_fit_are_refused(loss, mask: Tensor) -> None:
    with refuses("mask"):
        loss(LOGITS, LABELS, mask=mask)


@LOSSES
def test_ignore_index_needs_a_class_map(loss) -> None:
    with refuses("ignore_index"):
        loss(LOGITS, torch.rand(2, 3, 4, 5), ignore_index=255)


@LOSSES
def test_softmax_of_one_channel_is_refused(loss) -> None:
    with refuses("activation"):
        loss(LOGITS[:, :1], LABELS > 0)


@LOSSES
def test_leaving_out_the_only_channel_is_refused(loss) -> None:
    with refuses("include_background"):
        loss(LOGITS[:, :1], LABELS > 0, activation="sigmoid", include_background=False)


@LOSSES
@pytest.mark.parametrize("input", [LABELS[:, None], torch.rand(4)], ids=["integers", "no channels"])
def test_inputs_that_hold_no_logits_are_refused(loss, input: Tensor) -> None:
    with refuses("input"):
        loss(input, LABELS)


@LOSSES
def test_gradient_flows_into_a_soft_target_that_asks_for_it(loss) -> None:
    teacher = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(2, 3, 4, dtype=torch.float64)

    assert torch.autograd.gradcheck(lambda t: loss(logits, t), (teacher,))


@LOSSES
def test_gradient_flows_into_weights_that_ask_for_it(loss) -> None:
    mask = torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    logits, labels = torch.randn(2, 3, 4, dtype=torch.float64), torch.randint(0, 3, (2, 4))

    for options in ({}, {"label_smoothing": 0.1} if loss is cross_entropy_loss else {}):
        assert torch.autograd.gradcheck(
            lambda m, k, o=options: loss(logits, labels, mask=m, class_weight=k, **o),
            (mask, weight),
        )


@LOSSES
def test_the_second_derivative_is_right(loss) -> None:
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (2, 4))
    mask = torch.rand(2, 4, dtype=torch.float64)

    for options in ({}, {"activation": "sigmoid"}):
        assert torch.autograd.gradgradcheck(
            lambda x, o=options: loss(x, labels, mask=mask, **o), (logits,)
        )


@LOSSES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(loss, dtype: torch.dtype) -> None:
    logits = torch.randn(1, 2, 64, 64, 64).to(dtype)
    labels = (torch.rand(1, 64, 64, 64) < 0.2).long()
    plain, cast = logits.clone().requires_grad_(), logits.clone().requires_grad_()

    expected = loss(plain, labels)
    expected.backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = loss(cast, labels)
        actual.backward()

    assert torch.equal(actual, expected)
    assert torch.equal(cast.grad, plain.grad)
