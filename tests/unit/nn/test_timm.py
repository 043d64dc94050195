"""Backbones of timm as encoders: their maps, what is passed on, what is said when timm fails."""

import importlib

import pytest
import torch

import _torchvision_shim
from medkit.nn import DeepSupervised, TimmUNet, UNet2D, timm_encoder
from medkit.testing import assert_close

_torchvision_shim.install()
timm = pytest.importorskip("timm")


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_maps_are_those_of_timm(name: str) -> None:
    encoder = timm_encoder(name, in_channels=2).eval()
    theirs = timm.create_model(name, features_only=True, in_chans=2).eval()
    theirs.load_state_dict(encoder.backbone.state_dict())
    x = torch.randn(1, 2, 64, 96)

    maps = encoder(x)

    size = torch.tensor([64, 96])
    for found, expected, channels, stride in zip(
        maps, theirs(x), encoder.channels, encoder.strides, strict=True
    ):
        assert torch.equal(found, expected)
        size = size // stride
        assert found.shape == (1, channels, *size)


def test_everything_is_passed_on_to_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    create = timm.create_model

    def create_model(name: str, *, pretrained: bool, **options: object) -> torch.nn.Module:
        seen.update(name=name, pretrained=pretrained, **options)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", create_model)

    TimmUNet(
        3, 2, backbone="test_resnet", pretrained=True, out_indices=(0, 2), drop_path_rate=0.1,
        options={"output_stride": 32},
    )  # fmt: skip

    assert seen == {
        "name": "test_resnet",
        "pretrained": True,
        "features_only": True,
        "in_chans": 3,
        "out_indices": (0, 2),
        "drop_path_rate": 0.1,
        "output_stride": 32,
    }


def test_chosen_maps_keep_their_strides() -> None:
    encoder = timm_encoder("test_resnet", out_indices=(0, 2))

    assert encoder.strides == (2, 4)


@pytest.mark.parametrize("size", [(64, 64), (61, 97), (33, 40)])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_logits_have_the_size_of_the_input(backbone: str, size: tuple[int, int]) -> None:
    model = TimmUNet(1, 3, backbone=backbone, deep_supervision=2).eval()
    x = torch.randn(2, 1, *size)

    logits = DeepSupervised(model)(x)

    assert logits[0].shape == (2, 3, *size)
    assert torch.equal(model(x), logits[0])
    assert logits[1].shape[2:] == model.features(x)[1].shape[2:]


def test_a_unet_takes_an_encoder_and_its_sizes() -> None:
    encoder = timm_encoder("test_resnet", in_channels=1)
    model = UNet2D(1, 2, encoder=encoder, decoder_channels=(8, 8, 8, 8)).eval()

    assert model(torch.randn(1, 1, 64, 64)).shape == (1, 2, 64, 64)


def test_parameters_are_put_where_they_are_asked_for() -> None:
    encoder = timm_encoder("test_resnet", device="meta", dtype=torch.float64)

    assert {(p.device.type, p.dtype) for p in encoder.parameters()} == {("meta", torch.float64)}


def test_learns_to_find_a_disc() -> None:
    torch.manual_seed(0)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 32)] * 2, indexing="ij"))
    centres = 0.6 * torch.rand(8, 2, 1, 1) - 0.3
    target = ((grid - centres).norm(dim=1) < 0.4).long()
    x = target[:, None] + 0.3 * torch.randn(8, 1, 32, 32)
    model = TimmUNet(1, 2, backbone="test_resnet", out_indices=(0, 1), decoder_channels=(8, 8))
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)

    losses = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(model(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < 0.5 * losses[0]


def fails_to_import(monkeypatch: pytest.MonkeyPatch, package: str, error: Exception) -> None:
    importing = importlib.import_module

    def import_module(name: str) -> object:
        if name == package:
            raise error
        return importing(name)

    monkeypatch.setattr(importlib, "import_module", import_module)


def test_a_broken_torchvision_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    fails_to_import(
        monkeypatch, "torchvision", RuntimeError("operator torchvision::nms does not exist")
    )

    with pytest.raises(ImportError, match=r"torchvision is installed but fails .*nms does not"):
        timm_encoder("test_resnet")


def test_a_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    fails_to_import(monkeypatch, "timm", ModuleNotFoundError("no timm", name="timm"))

    with pytest.raises(ImportError, match=r"timm is needed here .*'medkit\[timm\]'"):
        TimmUNet(backbone="test_resnet")


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="in_channels must be at least 1"):
        timm_encoder("test_resnet", in_channels=0)
    with pytest.raises(ValueError, match=r"drop_path_rate must be in \[0, 1\)"):
        TimmUNet(backbone="test_resnet", drop_path_rate=1.0)
    with pytest.raises(ValueError, match=r"input must be \(batch, 1, height, width\)"):
        timm_encoder("test_resnet", in_channels=1)(torch.zeros(1, 2, 32, 32))


def test_normalisation_of_the_decoder_is_the_callers() -> None:
    model = TimmUNet(1, 2, backbone="test_resnet", norm=torch.nn.Identity)
    decoder = model.unet.decoder

    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in decoder.modules())
    x = torch.randn(1, 1, 33, 32)
    assert_close(model.eval()(x), model(x))


def test_checkpoints_change_nothing_but_what_is_kept() -> None:
    x = torch.randn(2, 1, 64, 64)
    plain = TimmUNet(1, 2, backbone="test_resnet").train()
    lean = TimmUNet(1, 2, backbone="test_resnet", checkpoint=True).train()
    lean.load_state_dict(plain.state_dict())
    kept: dict[str, int] = {}

    for name, model in (("plain", plain), ("lean", lean)):
        storages: dict[int, torch.UntypedStorage] = {}

        def pack(tensor: torch.Tensor, storages=storages) -> torch.Tensor:
            storages[tensor.data_ptr()] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = model(x)
        kept[name] = sum(storage.nbytes() for storage in storages.values())
        y.square().mean().backward()

    for (name, a), b in zip(plain.named_parameters(), lean.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(plain.named_buffers(), lean.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert kept["lean"] < 0.5 * kept["plain"]
