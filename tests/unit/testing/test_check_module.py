"""check_module finds what it should: no fault in a right module, each fault in a wrong one."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from medkit.testing import ContractError, check_module, module_laws, module_report
from unit.testing.wrong_modules import BROKEN, Block

COMPILED = {"compiles_to_one_graph", "exports"}
UNCOMPILED = [law for law in module_laws() if law not in COMPILED]
SHAPE = (2, 2, 6, 5)


@pytest.mark.parametrize("law", UNCOMPILED)
def test_a_right_module_obeys(law: str) -> None:
    assert check_module(Block, SHAPE, laws=[law]).passed == (law,)


@pytest.mark.parametrize(
    ("law", "wrong"), BROKEN, ids=[f"{law}-{wrong.__name__}" for law, wrong in BROKEN]
)
def test_a_wrong_module_is_found(law: str, wrong: type[Block]) -> None:
    assert set(module_report(wrong, SHAPE, laws=[law]).violations) == {law}


def test_every_law_has_a_module_that_breaks_it() -> None:
    assert {law for law, _ in BROKEN} | COMPILED == set(module_laws())


def test_check_raises_an_assertion_error_that_lists_the_violations() -> None:
    with pytest.raises(ContractError, match="partial: 1 of 1 laws violated") as caught:
        check_module(partial(nn.Conv2d, 2, 3, 3), SHAPE, laws=["bad_inputs_are_named"])

    assert isinstance(caught.value, AssertionError)


def test_a_module_without_parameters_is_held_to_what_applies() -> None:
    report = check_module(nn.ReLU, SHAPE, laws=UNCOMPILED)

    assert set(report.not_applicable) == {
        "device_and_dtype_are_honoured",
        "seed_decides_the_weights",
        "bad_inputs_are_named",
        "every_parameter_gets_a_gradient",
        "features_are_maps",
    }


def test_options_to_vary_are_tried() -> None:
    class Scaled(Block):
        def __init__(self, *, gain: float = 1.0) -> None:
            super().__init__()
            self.gain = gain

        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * self.gain

    vary = {"gain": (1.0, float("nan"))}
    report = module_report(Scaled, SHAPE, vary=vary, laws=["output_is_finite"])

    assert "gain=nan" in report.violations["output_is_finite"]
    with pytest.raises(ValueError, match="vary must be keyed by options of the factory, gain"):
        module_report(Scaled, SHAPE, vary={"depth": (1,)})


class Gate(nn.Module):
    def __init__(self, *, device: str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 1, 1, device=device, dtype=dtype)

    def forward(self, maps: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
        coarse, fine = maps["coarse"], maps["fine"]
        if coarse.ndim != 4 or coarse.shape[1] != 2:
            raise ValueError(f"maps must hold (B, 2, H, W); got {tuple(coarse.shape)}")
        return {"out": fine * self.mix(coarse).sigmoid() * scale}


def test_a_module_of_several_inputs_is_sampled_by_a_function() -> None:
    def sample(generator: torch.Generator) -> tuple[object, ...]:
        coarse, fine = (torch.randn(2, c, 4, 4, generator=generator) for c in (2, 3))
        return {"coarse": coarse, "fine": fine}, 2.0

    report = check_module(Gate, sample, laws=UNCOMPILED)

    assert set(report.not_applicable) == {"features_are_maps"}


def test_a_batch_of_one_says_that_it_cannot_tell_samples_apart() -> None:
    report = module_report(Block, (1, 2, 6, 5), laws=["samples_do_not_mix"])

    assert "two samples or more" in report.not_applicable["samples_do_not_mix"]


def test_a_module_that_returns_no_tensor_is_found() -> None:
    class Silent(nn.Module):
        def forward(self, input: Tensor) -> None:
            """Return nothing."""

    report = module_report(Silent, SHAPE, laws=["output_is_finite"])

    assert "gives no tensor" in report.violations["output_is_finite"]


def test_tokens_have_their_channels_last() -> None:
    class Tokens(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            if input.ndim != 3 or input.shape[-1] != self.in_features:
                raise ValueError(f"input must be (B, N, C); got {tuple(input.shape)}")
            return super().forward(input)

    report = check_module(partial(Tokens, 4, 3), (2, 5, 4), laws=["bad_inputs_are_named"])

    assert report.passed == ("bad_inputs_are_named",)


def test_laws_say_what_they_mean() -> None:
    assert all(sentence.endswith(".") for sentence in module_laws().values())


def test_factory_of_any_keywords_is_asked_for_device_and_dtype() -> None:
    def build(**options: object) -> Block:
        return Block(2, **options)

    law = "device_and_dtype_are_honoured"

    assert check_module(build, SHAPE, laws=[law]).passed == (law,)


def test_building_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()

    check_module(Block, SHAPE, laws=["seed_decides_the_weights"])

    assert torch.equal(torch.get_rng_state(), before)
