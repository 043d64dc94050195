"""Every public loss obeys every law that its options let apply."""

import pytest

import medkit.losses
from contract import loss_cases
from medkit.testing import loss_laws

WITHOUT_SHAPE_CHECKS = {
    "compiles_to_one_graph",
    "bad_options_are_named",
    "bad_shapes_are_named",
    "bad_labels_are_named",
}
"""Laws tried in tests/compile: the shape checks would break the graph, and answer in our stead."""

LAWS = [law for law in loss_laws() if law not in WITHOUT_SHAPE_CHECKS]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", loss_cases.CASES)
def test_law(name: str, law: str) -> None:
    report = loss_cases.report(name, law)

    report.raise_if_violated()
    if report.not_applicable:
        pytest.skip(report.not_applicable[law])


def test_every_public_loss_is_held_to_the_laws() -> None:
    assert not loss_cases.without_a_case()


def test_a_public_loss_without_a_case_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def new_loss() -> None:
        """A loss that nobody listed."""

    monkeypatch.setattr(medkit.losses, "__all__", [*medkit.losses.__all__, "NewSum"])
    monkeypatch.setattr(medkit.losses, "NewSum", new_loss, raising=False)

    assert "NewSum" in loss_cases.without_a_case()


def test_a_class_with_its_function_is_a_case_by_itself() -> None:
    assert loss_cases.found()["DiceLoss"]["function"] is medkit.losses.dice_loss
    assert loss_cases.found()["ClDiceLoss"]["function"] is medkit.losses.cldice_loss
