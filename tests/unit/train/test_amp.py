"""Precision is decided once, and only fp16 has a scaler."""

import pytest
import torch

from medkit.train import AmpPolicy


@pytest.mark.parametrize(
    ("mode", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("off", torch.float32)]
)
def test_autocast_computes_in_the_mode(mode: str, dtype: torch.dtype) -> None:
    with AmpPolicy(mode).autocast():  # type: ignore[arg-type]
        product = torch.ones(4, 4) @ torch.ones(4, 4)

    assert product.dtype == dtype


def test_only_fp16_has_a_scaler() -> None:
    assert isinstance(AmpPolicy("fp16").make_scaler(), torch.amp.GradScaler)
    assert AmpPolicy("bf16").make_scaler() is None
    assert AmpPolicy("off").make_scaler() is None


@pytest.mark.parametrize(
    ("device", "bf16", "expected"),
    [("cpu", True, "off"), ("cuda:1", True, "bf16"), ("cuda", False, "fp16"), ("mps", True, "off")],
)
def test_auto_takes_what_the_device_does_well(
    monkeypatch: pytest.MonkeyPatch, device: str, bf16: bool, expected: str
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return bf16 or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)

    policy = AmpPolicy("auto", device=device)

    assert policy.mode == expected
    assert policy.device == device.partition(":")[0]


@pytest.mark.usefixtures("unhooked")
def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match="mode must be one of 'off', 'bf16', 'fp16', 'auto'"):
        AmpPolicy("fp8")  # type: ignore[arg-type]
