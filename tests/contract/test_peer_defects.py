"""The laws find the known defects of other libraries' losses, and say so in numbers.

Each test pins one finding. When a library mends it, its test fails and the line can go.
"""

import importlib
import importlib.util
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import pytest

import _torchvision_shim
from contract import peer_losses as peers
from medkit.testing import loss_report


class Finding(NamedTuple):
    """A law, the loss that breaks it, and what the report must say."""

    name: str
    module: str
    loss: type
    law: str
    says: str
    setting: dict[str, object] | None = None


MONAI = "monai"
SMP = "segmentation_models_pytorch"
NNUNET = "nnunetv2.training.loss.compound_losses"
ONE = {"num_classes": 1}
FLAT = {"spatial_shape": (6, 6)}
HALF = "half_precision_agrees_at_a_million_voxels"

FINDINGS = [
    Finding(
        "focal loss drops the background logit before the softmax",
        MONAI,
        peers.MonaiFocal,
        "background_leaves_after_the_activation",
        "background logit gets 0 of the gradient",
    ),
    Finding(
        "focal loss is multiplied by the number of classes once ignore_index is given",
        MONAI,
        peers.MonaiFocal,
        "ignoring_nothing_changes_nothing",
        "2 classes, ignore_index=255: .* 2 times it; 4 classes.* 4 times it; 8 classes.* 8 times",
    ),
    Finding(
        "focal loss computes in float32 whatever comes in",
        MONAI,
        peers.MonaiFocal,
        "gradients_are_exact_in_float64",
        "against the difference quotient",
    ),
    Finding(
        "focal loss sums over another number of voxels than it lists",
        MONAI,
        peers.MonaiFocal,
        "reductions_agree",
        "reduction='sum' against the sum of 'none'",
    ),
    Finding(
        "cross entropy of regions is multiplied by their number once voxels may be ignored",
        NNUNET,
        peers.NnunetBce,
        "ignoring_nothing_changes_nothing",
        "2 classes.* 2 times it; 4 classes.* 4 times it; 8 classes.* 8 times it",
    ),
    Finding(
        "generalized Dice smooths away its weights on large organs",
        MONAI,
        peers.MonaiGeneralizedDice,
        "resolution_changes_nothing",
        r"each voxel cut into 8 along each axis: 0\.646\d* where 0\.669",
    ),
    Finding(
        "Dice overflows in float16 and is 1 without a gradient",
        MONAI,
        peers.MonaiDice,
        HALF,
        r"float16: 1 where 0\.4999",
    ),
    Finding(
        "generalized Dice overflows in float16",
        MONAI,
        peers.MonaiGeneralizedDice,
        HALF,
        r"float16: 1 where 0\.222",
    ),
    Finding(
        "Dice with cross entropy is NaN in float16",
        MONAI,
        peers.MonaiDiceCE,
        HALF,
        "float16: nan where",
    ),
    Finding(
        "Dice is NaN in float16",
        SMP,
        peers.SmpDice,
        HALF,
        r"float16: nan where 0\.4999",
        FLAT,
    ),
    *(
        Finding(
            f"{kind} is NaN in float16",
            SMP,
            peers.SmpOverlap,
            HALF,
            "float16: nan where",
            FLAT | {"vary": {"kind": (kind,)}},
        )
        for kind in ("TverskyLoss", "JaccardLoss")
    ),
    Finding("clDice is NaN in float16", MONAI, peers.MonaiClDice, HALF, "float16: nan where", ONE),
    Finding(
        "a mask multiplies logits, and a logit of 0 is a probability",
        MONAI,
        peers.MonaiMaskedDice,
        "masking_equals_cropping",
        r"masked voxels against cropping them: 0\.680\d* where 0\.626",
    ),
    Finding(
        "Hausdorff loss is 0 for foreground everywhere on an empty target",
        MONAI,
        peers.MonaiHausdorff,
        "false_positive_costs_on_an_empty_target",
        "foreground everywhere costs 0, none costs 0",
        ONE,
    ),
    Finding(
        "boundary loss is 0 for foreground everywhere on an empty target",
        MONAI,
        peers.MonaiBoundary,
        "false_positive_costs_on_an_empty_target",
        "foreground everywhere costs 0, none costs 0",
        ONE,
    ),
    Finding(
        "Dice has no gradient against an absent class",
        MONAI,
        peers.MonaiDice,
        "absent_class_keeps_a_gradient",
        r"gets gradient [\d.]+e-\d\d in all",
    ),
    Finding(
        "Dice skips an absent class",
        SMP,
        peers.SmpDice,
        "absent_class_keeps_a_gradient",
        "gets gradient 0 in all",
        FLAT,
    ),
    Finding(
        "unified focal loss asks for logits and applies no activation",
        MONAI,
        peers.MonaiUnifiedFocal,
        "input_is_logits",
        r"logits shifted voxel by voxel: 1\.415\d* where 1\.353",
        {"num_classes": 2},
    ),
    Finding(
        "deep supervision takes no class map of integers",
        MONAI,
        peers.MonaiDeepSupervision,
        "options_compose",
        "raises NotImplementedError: .* not implemented for 'Long'",
        {"spatial_shape": (4, 4, 4)},
    ),
    Finding(
        "deep supervision loses a structure one voxel thin",
        MONAI,
        peers.MonaiCoarseHead,
        "thin_structure_is_seen_wherever_it_lies",
        "a layer of voxels at 0 changes the loss by 0",
        {"num_classes": 2, "spatial_shape": (4, 4, 4)},
    ),
    Finding(
        "deep supervision cannot run with the weights it has by default",
        NNUNET,
        peers.NnunetDeepSupervision,
        "options_compose",
        "raises TypeError",
    ),
    Finding(
        "clDice has no gradient on a false branch by default",
        "medicai",
        peers.MedicaiClDice,
        "false_positive_branch_is_pushed_down",
        r"memory_efficient_skeleton=True\) gradient on the false branch 0 of",
        {**ONE, "spatial_shape": (8, 8)},
    ),
    Finding(
        "class weights multiply the Dice loss",
        MONAI,
        peers.MonaiDice,
        "class_weights_never_rescale",
        "class_weight 7 for every class against None: .* 7 times it",
    ),
    Finding(
        "class weights multiply the focal loss",
        MONAI,
        peers.MonaiFocal,
        "class_weights_never_rescale",
        "class_weight 7 for every class against None: .* 7 times it",
    ),
    Finding(
        "weights mean another thing for one-hot targets",
        MONAI,
        peers.MonaiDiceCE,
        "one_hot_equals_class_map",
        "one-hot target of torch.float64 against the class map",
    ),
    Finding(
        "an ignored label of a multi-label target still counts",
        SMP,
        peers.SmpDice,
        "ignoring_equals_cropping",
        r"\(activation='sigmoid'\) voxels of ignore_index=255 against cropping them",
        FLAT,
    ),
    Finding(
        "Dice breaks the graph",
        MONAI,
        peers.MonaiDice,
        "compiles_to_one_graph",
        "raises",
    ),
]

RIGHT = [
    (MONAI, peers.MonaiDice, "ignoring_equals_cropping", {}),
    (MONAI, peers.MonaiDice, "batch_pools_the_voxels_of_all_samples", {}),
    (MONAI, peers.MonaiDice, "gradients_are_exact_in_float64", {}),
    (MONAI, peers.MonaiGeneralizedDice, "order_of_classes_changes_nothing", {}),
    (MONAI, peers.MonaiDiceCE, "perfect_prediction_costs_nothing", {}),
    (SMP, peers.SmpDice, "gradients_are_exact_in_float64", FLAT),
    ("kornia", peers.KorniaDice, "class_weights_never_rescale", FLAT),
    ("kornia", peers.KorniaDice, "ignoring_equals_cropping", FLAT),
]
"""Laws that other libraries do obey: the laws do not cry wolf."""


@pytest.fixture(autouse=True)
def _quiet_peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let other libraries warn of what they like, and Keras run on torch."""
    _torchvision_shim.install()
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda f: f"{f.loss.__name__}-{f.law}")
def test_defect_is_found(finding: Finding) -> None:
    """The report on the loss names the law, and the message the numbers."""
    require(finding.module)

    report = loss_report(finding.loss, laws=[finding.law], **(finding.setting or {}))

    assert set(report.violations) == {finding.law}, finding.name
    assert re.search(finding.says, report.violations[finding.law]), report.violations[finding.law]


@pytest.mark.parametrize(
    ("module", "loss", "law", "setting"), RIGHT, ids=[f"{r[1].__name__}-{r[2]}" for r in RIGHT]
)
def test_what_is_right_is_not_reported(
    module: str, loss: type, law: str, setting: dict[str, object]
) -> None:
    require(module)

    assert loss_report(loss, laws=[law], **setting).passed == (law,)


def test_full_gradient_of_cldice_is_not_reported() -> None:
    """The option that medicai turns off by default has the gradient that is missing."""
    require("medicai")
    law = "false_positive_branch_is_pushed_down"
    setting = {**ONE, "spatial_shape": (8, 8), "vary": {"memory_efficient_skeleton": [False]}}

    assert loss_report(peers.MedicaiClDice, laws=[law], **setting).passed == (law,)


def require(module: str) -> None:
    """Skip where a peer is not installed; a peer that is broken fails loudly."""
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"{module} is not installed")
    importlib.import_module(module)
