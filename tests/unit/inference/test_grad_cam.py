"""Maps show where a layer finds what speaks for a class, and leave the network as it was."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medkit.inference import GradCAM, sliding_window_inference
from medkit.testing import assert_close
from unit.losses.refusals import refuses

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "grad_cam" / "grad_cam.npz")
METHODS = ("gradcam", "gradcam++", "hirescam")


def classifier(dims: int = 2, *, pooled: bool = True) -> nn.Module:
    """Three layers; the head weighs channels if pooled, else every voxel of an 8 x 8 image."""
    conv, pool = getattr(nn, f"Conv{dims}d"), getattr(nn, f"AdaptiveAvgPool{dims}d")
    return nn.Sequential(
        conv(1, 4, 3, padding=1),
        getattr(nn, f"BatchNorm{dims}d")(4),
        nn.ReLU(inplace=True),
        conv(4, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        pool(1) if pooled else nn.Identity(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6 if pooled else 6 * 4**dims, 3),
    )


def oracle(activation: np.ndarray, gradient: np.ndarray, method: str) -> np.ndarray:
    """The formulas of the papers for one sample, voxel by voxel, in float64 without torch."""
    result = np.zeros(activation.shape[1:])
    voxels = list(np.ndindex(*activation.shape[1:]))
    for a, g in zip(activation, gradient, strict=True):
        weight = 0.0
        for v in voxels:
            if method == "gradcam":
                weight += g[v] / len(voxels)
            elif method == "gradcam++" and g[v] != 0:
                alpha = g[v] ** 2 / (2 * g[v] ** 2 + sum(a[u] for u in voxels) * g[v] ** 3)
                weight += alpha * max(g[v], 0.0)
        for v in voxels:
            result[v] += a[v] * (g[v] if method == "hirescam" else weight)
    return np.maximum(result, 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dims", [2, 3])
def test_maps_are_the_formula_of_the_paper(dims: int, method: str) -> None:
    model = classifier(dims, pooled=False).double().eval()
    x = torch.randn(2, 1, *(8,) * dims, dtype=torch.float64)
    activation = model[:5](x).detach().requires_grad_()
    y = model[5:](activation)
    gradient = torch.autograd.grad(y[0, 2] + y[1, 0], activation)[0].numpy()
    expected = [oracle(activation[i].detach().numpy(), gradient[i], method) for i in range(2)]

    maps = GradCAM(model, "4", method=method, scale="none")(x, target=(2, 0))

    large = torch.from_numpy(np.stack(expected))[:, None]
    mode = "bilinear" if dims == 2 else "trilinear"
    assert maps.shape == (2, 1, *(8,) * dims)
    assert_close(maps, F.interpolate(large, x.shape[2:], mode=mode, align_corners=False))


class Network(nn.Module):
    """The network of the golden maps."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        conv = getattr(nn, f"Conv{dims}d")
        self.first = conv(2, 4, 3, padding=1)
        self.second = conv(4, 5, 3, stride=2, padding=1)
        self.head = nn.Linear(GOLDEN[f"{dims}d.head.weight"].shape[1], 3)
        self.relu = nn.ReLU()
        state = {name: torch.from_numpy(GOLDEN[f"{dims}d.{name}"]) for name in self.state_dict()}
        self.double().load_state_dict(state)

    def forward(self, input: Tensor) -> Tensor:
        return self.head(self.relu(self.second(self.first(input).relu())).flatten(1))


@pytest.mark.parametrize(
    ("dims", "method"), [(2, m) for m in METHODS] + [(3, "gradcam"), (3, "hirescam")]
)
def test_maps_are_those_of_the_grad_cam_package(dims: int, method: str) -> None:
    x, classes, raw = (
        torch.from_numpy(GOLDEN[f"{dims}d.{name}"])
        for name in ("input", "classes", f"{method}.raw")
    )
    model = Network(dims)
    coarse = GradCAM(model, "relu", method=method, scale="none")(x, target=classes)
    mode = "bilinear" if dims == 2 else "trilinear"
    expected = F.interpolate(raw[:, None], x.shape[2:], mode=mode, align_corners=False)

    # the package adds 1e-6 to denominators of g**2 of about 1e8
    assert_close(coarse, expected, rtol=1e-7, atol=1e-10 * float(raw.max()))
    if dims == 2:  # the package also subtracts the minimum
        shown = torch.from_numpy(GOLDEN[f"2d.{method}.shown"])[:, None]  # float32
        low, high = coarse.amin((2, 3), keepdim=True), coarse.amax((2, 3), keepdim=True)
        assert_close((coarse - low) / (high - low).clamp_min(1), shown, rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_score_may_be_a_probability(activation: str) -> None:
    model = classifier().eval()
    x = torch.randn(2, 1, 8, 8)
    likely = {"softmax": partial(torch.softmax, dim=1), "sigmoid": torch.sigmoid}[activation]
    maps = GradCAM(model, "4", activation=activation, scale="none")(x, target=1)
    by_hand = GradCAM(model, "4", scale="none")(x, target=lambda y: likely(y)[:, 1])

    assert_close(maps, by_hand)
    assert not torch.allclose(maps, GradCAM(model, "4", scale="none")(x, target=1))


def test_no_target_means_the_predicted_class() -> None:
    model = classifier().eval()
    x = torch.randn(5, 1, 8, 8)
    cam = GradCAM(model, "4")

    assert torch.equal(cam(x), cam(x, target=model(x).argmax(1)))
    assert torch.equal(cam(x), cam(x, target=model(x).argmax(1).tolist()))


def test_each_sample_has_the_map_it_would_have_alone() -> None:
    cam = GradCAM(classifier(3), ["2", "4"], method="gradcam++")
    x = torch.randn(3, 1, 8, 6, 7)

    maps = cam(x, target=[0, 2, 1])

    alone = [cam(x[i : i + 1], target=k) for i, k in enumerate((0, 2, 1))]
    assert maps.shape == (3, 2, 8, 6, 7)
    assert_close(maps, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert torch.equal(
        maps[:, :1], GradCAM(cam.model, "2", method="gradcam++")(x, target=[0, 2, 1])
    )


def test_scaled_maps_reach_one_and_do_not_depend_on_the_scale_of_the_logits() -> None:
    model = classifier()
    x = torch.randn(2, 1, 8, 8)
    maps = GradCAM(model, "4")(x, target=1)
    assert_close(maps.amax((1, 2, 3)), torch.ones(2))
    with torch.no_grad():
        model[8].weight.mul_(1000)

    assert_close(GradCAM(model, "4")(x, target=1), maps)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_without_positive_values_is_zero(method: str) -> None:
    model = classifier().eval()
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        model[8].weight[0] = -model[8].weight[0].abs()  # everything speaks against class 0
        model[8].weight[1] = 0.0  # the gradient vanishes
    for target in (0, 1):
        assert torch.equal(
            GradCAM(model, "4", method=method)(x, target=target), torch.zeros_like(x)
        )


def test_a_vanishing_denominator_does_not_count() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).flatten(1).sum(1, keepdim=True)

    x = torch.tensor([[[[-3.0, 1.0]], [[1.0, 2.0]]]])  # sum -2 in channel 0: 2 + 1 * -2 = 0
    maps = GradCAM(Fixed(), "layer", method="gradcam++", scale="none")(x, target=0)

    assert_close(maps, torch.tensor([[[[2 / 5, 4 / 5]]]]))  # weight 2 / (2 + 3) of channel 1


def test_an_activation_in_place_behind_the_layer_changes_nothing() -> None:
    model = classifier().eval()
    plain = copy.deepcopy(model)
    plain[2].inplace = False
    x = torch.randn(2, 1, 8, 8)

    assert torch.equal(GradCAM(model, "1")(x, target=1), GradCAM(plain, "1")(x, target=1))


def test_the_network_is_left_as_it_was() -> None:
    model = classifier()
    model[1].eval()
    model(torch.randn(4, 1, 8, 8)).sum().backward()
    model[3].weight.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    modes = [module.training for module in model.modules()]

    GradCAM(model, ["2", "4"])(torch.randn(2, 1, 8, 8))

    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    for before, parameter in zip(gradients, model.parameters(), strict=True):
        assert before is None or torch.equal(before, parameter.grad)
    assert modes == [module.training for module in model.modules()]
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_stays_behind_after_an_error() -> None:
    def broken(output: Tensor) -> Tensor:
        raise RuntimeError("broken")

    model = classifier()
    with pytest.raises(RuntimeError, match="broken"):
        GradCAM(model, ["2", "4"])(torch.randn(2, 1, 8, 8), target=broken)

    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_frozen_network_without_gradients_has_maps() -> None:
    model = classifier().eval().requires_grad_(False)
    x = torch.randn(2, 1, 8, 8)
    expected = GradCAM(copy.deepcopy(model).requires_grad_(), "4")(x, target=1)
    with torch.no_grad():
        assert torch.equal(GradCAM(model, "4")(x, target=1), expected)
    with torch.inference_mode():
        assert torch.equal(GradCAM(model, "4")(x.clone(), target=1), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_maps_in_float32(dtype: torch.dtype) -> None:
    model = classifier()
    x = torch.randn(2, 1, 8, 8)
    expected = GradCAM(model, "4")(x, target=1)
    maps = GradCAM(model.to(dtype), "4")(x.to(dtype), target=1)

    assert maps.dtype == torch.float32
    assert_close(maps, expected, rtol=0, atol=0.05)  # of 1; the network itself rounds


def test_the_score_of_a_segmentation_is_summed_over_voxels() -> None:
    model = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 1)).eval()
    x = torch.randn(2, 1, 5, 6, 7)
    maps = GradCAM(model, "1")(x, target=1)
    assert_close(maps, GradCAM(model, "1")(x, target=lambda y: y[:, 1].flatten(1).sum(1)))

    with pytest.raises(ValueError, match="target must be given for a network that segments"):
        GradCAM(model, "1")(x)


def test_tokens_become_maps() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(1, 6, 2, stride=2)
            self.norm = nn.LayerNorm(6)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.embed(x).flatten(2).mT).mean(1))

    x = torch.randn(2, 1, 8, 6)
    cam = GradCAM(Tokens(), "norm", to_map=lambda t: t.mT.unflatten(2, (4, 3)))
    assert cam(x, target=1).shape == x.shape
    with pytest.raises(ValueError, match="give to_map"):
        GradCAM(cam.model, "head")(x, target=1)


def test_windows_are_blended_before_the_whole_is_scaled() -> None:
    model = classifier(3)
    volume = torch.randn(1, 1, 12, 8, 10)
    cam = GradCAM(model, "4")
    raw = GradCAM(model, "4", scale="none")
    maps = cam.sliding_window(volume, target=1, roi_size=8, overlap=0.25, batch_size=2)
    by_hand = sliding_window_inference(volume, partial(raw, target=1), roi_size=8, overlap=0.25)

    assert_close(maps, by_hand / by_hand.max(), rtol=1e-4, atol=1e-6)
    assert maps.max() == 1
    one = cam.sliding_window(volume[:, :, :8, :8, :8], target=1, roi_size=8)
    assert_close(one, cam(volume[:, :, :8, :8, :8], target=1))
    with pytest.raises(ValueError, match="target must be one class or a function"):
        cam.sliding_window(volume, target=None, roi_size=8)


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.unused, self.side = (nn.Conv2d(1, 1, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        self.side(x)
        return self.layer(self.layer(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ("later", r"layers must be names out of model.named_modules\(\), such as 'layer'"),
        ((), "layers must be at least one name"),
        ("layer", "layers must be run once each; got 'layer', run 2x"),
        ("unused", "layers must be run once each; got 'unused', run 0x"),
        ("side", r"layers must be layers that the score depends on; got \['side'\]"),
    ],
)
def test_a_layer_that_gives_no_map_is_an_error(layers: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GradCAM(_Twice(), layers)(torch.randn(1, 1, 4, 4), target=0)


@pytest.mark.parametrize("target", [3, -1, (0, 1, 2), lambda y: y])
def test_a_target_that_is_no_score_is_an_error(target: object) -> None:
    with pytest.raises(ValueError, match="target must be"):
        GradCAM(classifier(), "4")(torch.randn(2, 1, 8, 8), target=target)


def test_several_outputs_need_a_function() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = classifier()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.body(x), x

    x = torch.randn(2, 1, 8, 8)
    cam = GradCAM(Heads().eval(), "body.4")
    assert_close(cam(x, target=lambda y: y[0][:, 1]), GradCAM(cam.model.body, "4")(x, target=1))
    with pytest.raises(
        TypeError, match="target must be a function where the network returns tuple"
    ):
        cam(x, target=1)
    with pytest.raises(TypeError, match="layers must return one tensor; got tuple"):
        GradCAM(cam.model, "")(x, target=1)


@pytest.mark.parametrize("target", [1.5, True])
def test_a_target_that_is_no_class_is_refused(target: object) -> None:
    with refuses("target"):
        GradCAM(classifier(), "3")(torch.rand(1, 1, 8, 8), target=target)


@pytest.mark.usefixtures("unhooked")
def test_a_window_takes_an_integer_of_numpy() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 2, 1))
    x = torch.rand(1, 1, 9, 9)
    maps = [GradCAM(network, "0").sliding_window(x, target=t, roi_size=6) for t in (1, np.int64(1))]
    assert torch.equal(*maps)
