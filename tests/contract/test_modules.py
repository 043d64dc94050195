"""Every public module obeys every law of modules."""

import pytest
from torch import nn

import medkit.nn
from contract import module_cases
from medkit.testing import module_laws

WITHOUT_SHAPE_CHECKS = {"bad_inputs_are_named", "compiles_to_one_graph", "exports"}
"""Laws tried in tests/compile: the shape checks would break the graph, and answer in our stead."""

LAWS = [law for law in module_laws() if law not in WITHOUT_SHAPE_CHECKS]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", module_cases.CASES)
def test_law(name: str, law: str) -> None:
    report = module_cases.report(name, law)

    report.raise_if_violated()
    if report.not_applicable:
        pytest.skip(report.not_applicable[law])


def test_every_public_module_is_held_to_the_laws() -> None:
    assert not module_cases.without_a_case()


def test_a_public_module_without_a_case_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medkit.nn, "__all__", [*medkit.nn.__all__, "NewBlock3D"])
    monkeypatch.setattr(medkit.nn, "NewBlock3D", nn.Identity, raising=False)

    assert "NewBlock3D" in module_cases.without_a_case()
