"""Laws of losses that the shape checks would hide: one graph, and errors that name the argument."""

import pytest

from contract import loss_cases
from contract.test_losses import WITHOUT_SHAPE_CHECKS
from medkit.testing import loss_report
from unit.testing.reference_dice import Dice
from unit.testing.wrong_losses import AsksForItems


@pytest.mark.parametrize("law", sorted(WITHOUT_SHAPE_CHECKS))
@pytest.mark.parametrize("name", loss_cases.CASES)
def test_law(name: str, law: str) -> None:
    report = loss_cases.report(name, law)

    report.raise_if_violated()
    if report.not_applicable:
        pytest.skip(report.not_applicable[law])


def test_a_right_loss_compiles() -> None:
    law = "compiles_to_one_graph"

    assert loss_report(Dice, laws=[law]).passed == (law,)


def test_a_loss_that_asks_for_values_is_found() -> None:
    report = loss_report(AsksForItems, laws=["compiles_to_one_graph"])

    assert set(report.violations) == {"compiles_to_one_graph"}
