"""Laws of modules that the shape checks would hide: one graph, export, and named arguments."""

import pytest
import torch
from torch import Tensor

from contract import module_cases
from contract.test_modules import WITHOUT_SHAPE_CHECKS
from medkit.testing import module_report
from unit.testing.wrong_modules import Block

SHAPE = (2, 2, 6, 5)


@pytest.mark.parametrize("law", sorted(WITHOUT_SHAPE_CHECKS))
@pytest.mark.parametrize("name", module_cases.CASES)
def test_law(name: str, law: str) -> None:
    report = module_cases.report_once(name, law)

    report.raise_if_violated()
    if report.not_applicable:
        pytest.skip(report.not_applicable[law])


@pytest.mark.parametrize("law", ["compiles_to_one_graph", "exports"])
def test_a_right_module_is_traced(law: str) -> None:
    assert module_report(Block, SHAPE, laws=[law]).passed == (law,)


class AsksForItems(Block):
    """A decision on a value breaks the graph."""

    def forward(self, input: Tensor) -> Tensor:
        output = super().forward(input)
        return output if output.sum().item() < 1e9 else -output


class ComputesOtherwise(Block):
    """Another number where it is traced."""

    def forward(self, input: Tensor) -> Tensor:
        output = super().forward(input)
        return 1.01 * output if torch.compiler.is_compiling() else output


@pytest.mark.parametrize("law", ["compiles_to_one_graph", "exports"])
@pytest.mark.parametrize("wrong", [AsksForItems, ComputesOtherwise])
def test_a_module_that_cannot_be_traced_is_found(wrong: type[Block], law: str) -> None:
    assert set(module_report(wrong, SHAPE, laws=[law]).violations) == {law}
