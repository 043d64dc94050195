"""check_loss finds what it should: no fault in a right loss, and each fault in a wrong one."""

import pickle
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from medkit.testing import ContractError, check_loss, loss_laws, loss_report
from unit.testing.reference_dice import Dice, dice
from unit.testing.wrong_losses import BROKEN, dice_of_another_default

COMPILED = {"compiles_to_one_graph"}
PARITY = {"function_and_class_have_one_signature", "function_and_class_give_the_same_number"}
UNCOMPILED = [law for law in loss_laws() if law not in COMPILED]


@pytest.mark.parametrize("law", UNCOMPILED)
def test_a_right_loss_obeys(law: str) -> None:
    assert check_loss(Dice, function=dice, laws=[law]).passed == (law,)


@pytest.mark.parametrize(
    ("law", "wrong"), BROKEN, ids=[f"{law}-{wrong.__name__}" for law, wrong in BROKEN]
)
def test_a_wrong_loss_is_found(law: str, wrong: type[Dice]) -> None:
    report = loss_report(wrong, laws=[law])

    assert set(report.violations) == {law}


def test_every_law_has_a_loss_that_breaks_it() -> None:
    assert {law for law, _ in BROKEN} | COMPILED | PARITY == set(loss_laws())


@pytest.mark.parametrize("law", sorted(PARITY))
def test_a_function_of_another_default_is_found(law: str) -> None:
    report = loss_report(Dice, function=dice_of_another_default, laws=[law])

    assert set(report.violations) == {law}


def test_a_function_of_other_options_is_found() -> None:
    def without_options(input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return dice(input, target, mask=mask)

    def by_position(input: Tensor, target: Tensor, smooth: float = 1e-5) -> Tensor:
        return dice(input, target, smooth=smooth)

    class Smoothed(nn.Module):
        def __init__(self, *, smooth: float = 1e-5) -> None:
            super().__init__()
            self.smooth = smooth

        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            return dice(input, target, smooth=self.smooth)

    law = "function_and_class_have_one_signature"
    found = loss_report(Dice, function=without_options, laws=[law]).violations[law]
    assert "the function has options []" in found
    found = loss_report(Smoothed, function=by_position, laws=[law]).violations[law]
    assert "smooth can be given by position" in found


def test_violation_says_what_and_by_how_much() -> None:
    wrong = dict(BROKEN)["ignoring_nothing_changes_nothing"]
    message = loss_report(wrong, laws=["ignoring_nothing_changes_nothing"]).violations

    assert "2 classes, ignore_index=255" in message["ignoring_nothing_changes_nothing"]
    assert "2 times it" in message["ignoring_nothing_changes_nothing"]


def test_check_raises_an_assertion_error_that_lists_all_violations() -> None:
    wrong = dict(BROKEN)["full_mask_changes_nothing"]

    with pytest.raises(ContractError, match="full_mask_changes_nothing") as caught:
        check_loss(wrong, laws=["full_mask_changes_nothing", "masking_equals_cropping"])

    assert isinstance(caught.value, AssertionError)
    assert len(caught.value.report.violations) == 2
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_law_without_its_option_is_not_applicable_and_says_why() -> None:
    report = loss_report(nn.CrossEntropyLoss, laws=["input_is_logits", "full_mask_changes_nothing"])

    assert report.passed == ()
    assert set(report.not_applicable) == {"input_is_logits", "full_mask_changes_nothing"}
    assert "needs mask" in report.not_applicable["full_mask_changes_nothing"]


class Bare(nn.Module):
    """A loss without options or mask; probabilities by sigmoid, several labels at a voxel."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return Dice(activation="sigmoid")(input, target)


def test_a_loss_without_options_is_held_to_what_it_offers() -> None:
    laws = [law for law in UNCOMPILED if "million" not in law]
    report = check_loss(Bare, laws=laws, excuses={"absent_class_keeps_a_gradient": "plain ratio"})

    assert "one_hot_equals_class_map" in report.passed
    assert report.not_applicable["masked_voxels_have_no_influence"].startswith("needs ignore_index")
    assert report.not_applicable["bad_options_are_named"] == "no option with a choice of words"
    assert report.not_applicable["input_is_logits"].startswith("needs activation")


def test_a_loss_that_offers_part_of_the_vocabulary_is_held_to_that_part() -> None:
    class Part(nn.Module):
        def __init__(
            self,
            *,
            activation: Literal["sigmoid"] = "sigmoid",
            absent: Literal["ratio", "skip"] = "ratio",
            reduction: Literal["mean", "sum"] = "mean",
        ) -> None:
            super().__init__()
            self.loss = Dice(activation=activation, absent=absent, reduction=reduction)

        def forward(self, input: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
            return self.loss(input, target, mask=mask)

    laws = [
        "input_is_logits",
        "activation_may_be_applied_outside",
        "reductions_agree",
        "absent_class_costs_its_mean_probability",
        "absent_class_may_be_left_out",
        "masked_voxels_have_no_influence",
    ]
    report = check_loss(Part, laws=laws)

    assert report.passed == ("absent_class_may_be_left_out", "masked_voxels_have_no_influence")
    assert report.not_applicable == {
        "input_is_logits": "its activation is not softmax",
        "activation_may_be_applied_outside": "offers no activation=None",
        "reductions_agree": "offers no 'none' to compare 'mean' or 'sum' with",
        "absent_class_costs_its_mean_probability": (
            "needs absent='penalize', which this loss does not offer"
        ),
    }


def test_a_loss_over_a_line_has_no_branches() -> None:
    law = "false_positive_branch_is_pushed_down"
    report = loss_report(Dice, spatial_shape=(7,), laws=[law])

    assert report.not_applicable == {law: "needs two spatial axes"}


def test_a_default_reduction_of_none_cannot_be_compared_at_a_million_voxels() -> None:
    law = "half_precision_agrees_at_a_million_voxels"

    class Unreduced(Bare):
        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            return Dice(reduction="none")(input, target)

    assert "no single number" in loss_report(Unreduced, laws=[law]).not_applicable[law]


def test_laws_say_what_they_mean() -> None:
    laws = loss_laws()

    assert laws["ignoring_equals_cropping"].startswith("Ignored voxels count as little as")
    assert all(sentence.endswith(".") for sentence in laws.values())


def test_an_excuse_is_tried_and_must_be_needed() -> None:
    wrong = dict(BROKEN)["full_mask_changes_nothing"]
    excuses = {"full_mask_changes_nothing": "known", "masking_equals_ignoring": "known"}

    report = loss_report(wrong, laws=list(excuses), excuses=excuses)
    assert set(report.excused) == set(excuses)
    assert report.excused["full_mask_changes_nothing"].startswith("known (")

    report = loss_report(Dice, laws=["full_mask_changes_nothing"], excuses=excuses)
    assert "remove the excuse" in report.violations["full_mask_changes_nothing"]


@pytest.mark.parametrize("argument", ["laws", "excuses"])
def test_unknown_law_is_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be names of laws; got 'no_such_law'"):
        loss_report(Dice, **{argument: {"no_such_law": "x"}})


def test_unknown_option_to_vary_is_refused() -> None:
    with pytest.raises(ValueError, match="vary must be keyed by options of the factory"):
        loss_report(Dice, vary={"gamma": (1, 2)})


def test_options_to_vary_are_tried_with_the_others() -> None:
    class Offset(Dice):
        def __init__(self, *, offset: float = 0.0, batch: bool = False) -> None:
            super().__init__(batch=batch)
            self.offset = offset

        def reduced(self, loss: Tensor) -> Tensor:
            return super().reduced(loss) + self.offset

    law = "perfect_prediction_costs_nothing"
    assert loss_report(Offset, laws=[law]).passed == (law,)
    report = loss_report(Offset, vary={"offset": (0.0, 0.5)}, laws=[law])
    assert "offset=0.5" in report.violations[law]


@pytest.mark.parametrize(
    "laws", [[law] for law in UNCOMPILED if "million" not in law], ids=lambda laws: laws[0]
)
@pytest.mark.parametrize("setting", [{"num_classes": 1}, {"spatial_shape": (5, 6)}], ids=str)
def test_binary_and_flat_losses_are_held_to_the_same_laws(
    setting: dict[str, object], laws: list[str]
) -> None:
    report = check_loss(Dice, function=dice, laws=laws, **setting)

    reasons = report.not_applicable.values()
    assert report.passed or list(reasons) == ["needs more than one class"]


def test_a_part_that_always_raises_breaks_every_law_it_is_held_to() -> None:
    class Crashes(Dice):
        def kept(self, target: Tensor, mask: Tensor | None) -> Tensor:
            raise KeyError("gone", target.shape, mask)

    report = loss_report(Crashes, laws=UNCOMPILED)

    checked_before = {"bad_options_are_named", "bad_shapes_are_named", "bad_labels_are_named"}
    assert set(report.passed) == checked_before
    assert "raises KeyError" in report.violations["order_of_axes_changes_nothing"]


def test_a_part_that_refuses_everything_does_not_pass() -> None:
    class Refuses(Dice):
        def kept(self, target: Tensor, mask: Tensor | None) -> Tensor:
            raise ValueError("no", target.shape, mask)

    report = loss_report(Refuses, laws=["options_compose", "order_of_axes_changes_nothing"])

    assert set(report.violations) == {"options_compose", "order_of_axes_changes_nothing"}
    assert "with its own defaults it raises ValueError" in str(report)


class GroupMean(nn.Module):
    """A loss of other inputs: predictions per node, against a target per group."""

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in {"mean", "sum", "none"}:
            raise ValueError(f"reduction must be known; got {reduction!r}")
        self.reduction = reduction

    def forward(self, predictions: Tensor, targets: Tensor, group_ids: Tensor) -> Tensor:
        sums = torch.zeros_like(targets).index_add(0, group_ids, predictions)
        sizes = torch.zeros_like(targets).index_add(0, group_ids, torch.ones_like(predictions))
        loss = (sums / sizes - targets) ** 2
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()


def group_sample(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.tensor([0, 2, 1, 1, 0, 2, 2])
    return torch.randn(7, generator=generator), torch.randn(3, generator=generator), ids


def test_a_loss_of_other_inputs_is_held_to_the_laws_that_apply() -> None:
    report = check_loss(GroupMean, sample=group_sample, laws=UNCOMPILED)

    assert "gradients_are_exact_in_float64" in report.passed
    assert "reductions_agree" in report.passed
    assert "bad_options_are_named" in report.passed
    assert "needs logits and a class map" in report.not_applicable["masking_equals_cropping"]


def test_a_wrong_loss_of_other_inputs_is_found() -> None:
    class Half(GroupMean):
        def forward(self, predictions: Tensor, targets: Tensor, group_ids: Tensor) -> Tensor:
            return super().forward(predictions.float(), targets.float(), group_ids).double()

    report = loss_report(Half, sample=group_sample, laws=["gradients_are_exact_in_float64"])

    assert report.violations


def test_a_sample_without_tensors_is_refused() -> None:
    with pytest.raises(TypeError, match="sample must make at least one tensor"):
        loss_report(GroupMean, sample=lambda _: ())
