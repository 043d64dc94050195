"""The report names what would make two runs differ."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from medkit.losses import ClDiceLoss, CrossEntropyLoss, DiceLoss, WeightedSum
from medkit.nn import SegFormer3D
from medkit.train import Stepper, determinism_report, seed_everything


def test_a_cpu_has_no_problems_and_its_settings_are_told() -> None:
    report = determinism_report(
        model=nn.Sequential(nn.Upsample(mode="trilinear"), nn.Conv3d(1, 1, 1))
    )

    assert report.problems == ()
    assert report.settings["torch"] == torch.__version__
    assert report.settings["threads"] == torch.get_num_threads()
    assert report.settings["device"] == "cpu"


def test_layers_that_cannot_repeat_on_a_gpu_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    model = nn.Sequential(
        nn.Upsample(mode="trilinear"), nn.Upsample(mode="nearest"), nn.AdaptiveAvgPool3d(1),
        nn.MaxPool3d(2),
    )  # fmt: skip

    problems = determinism_report(model=model, device="cuda").problems

    assert [problem.partition(" has")[0] for problem in problems] == [
        "0 (Upsample)",
        "2 (AdaptiveAvgPool3d)",
    ]


def test_switches_that_are_off_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    problems = determinism_report(device="cuda").problems

    assert len(problems) == 3
    assert "deterministic=True" in problems[0]
    assert "benchmark = False" in problems[1]
    assert "CUBLAS_WORKSPACE_CONFIG" in problems[2]


@pytest.fixture
def _switches_come_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    benchmark = torch.backends.cudnn.benchmark
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


def _two_steps(device: str) -> list[Tensor]:
    seed_everything(0, deterministic=True)
    model = SegFormer3D(
        1, 2, embed_dims=(8, 8, 8, 8), num_heads=(1, 1, 1, 1), depths=(1, 1, 1, 1), decoder_dim=8
    )
    model = model.to(device)
    parts = {"dice": (1.0, DiceLoss()), "ce": (1.0, CrossEntropyLoss()), "cl": (1.0, ClDiceLoss())}
    loss = WeightedSum(parts)
    stepper = Stepper(model, torch.optim.AdamW(model.parameters(), lr=0.01), accumulate=1)
    image = torch.randn(2, 1, 32, 32, 32, device=device)
    for _ in range(2):
        stepper.backward(loss(model(image), (image[:, 0] > 0).long()))
        stepper.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.usefixtures("_switches_come_back")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_two_deterministic_runs_end_in_the_same_bits(device: str) -> None:
    """Of what raises on a GPU in this mode, nothing is used."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")

    first, second = _two_steps(device), _two_steps(device)

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
