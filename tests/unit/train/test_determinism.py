"""The report names what would make two runs differ."""

import pytest
import torch
from torch import nn

from medkit.train import determinism_report


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
