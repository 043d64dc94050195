"""Maps of the grad-cam package; see README.md. Run from the folder ``tests``."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import _torchvision_shim

_torchvision_shim.install()
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

METHODS = {"gradcam": GradCAM, "gradcam++": GradCAMPlusPlus, "hirescam": HiResCAM}


class Network(nn.Module):
    """Two convolutions and a head that weighs every voxel."""

    def __init__(self, dims: int, values: dict[str, np.ndarray]) -> None:
        super().__init__()
        conv = getattr(nn, f"Conv{dims}d")
        self.first = conv(2, 4, 3, padding=1)
        self.second = conv(4, 5, 3, stride=2, padding=1)
        self.head = nn.LazyLinear(3)
        self.relu = nn.ReLU()
        self.double()
        self(torch.zeros(1, 2, *(8, 6, 4)[:dims], dtype=torch.float64))
        for name, parameter in self.named_parameters():
            parameter.data.copy_(torch.from_numpy(values[name]))

    def forward(self, input: Tensor) -> Tensor:
        return self.head(self.relu(self.second(self.first(input).relu())).flatten(1))


def main() -> None:
    rng = np.random.default_rng(20251125)
    arrays = {}
    for dims in (2, 3):
        size = (8, 6, 4)[:dims]
        inner = int(np.prod([n // 2 for n in size]))
        values = {
            "first.weight": rng.normal(size=(4, 2, *(3,) * dims)),
            "first.bias": rng.normal(size=4),
            "second.weight": rng.normal(size=(5, 4, *(3,) * dims)),
            "second.bias": rng.normal(size=5),
            # gradients far above the 1e-6 that the package adds to denominators
            "head.weight": 1e4 * rng.normal(size=(3, 5 * inner)),
            "head.bias": rng.normal(size=3),
        }
        x, classes = rng.normal(size=(3, 2, *size)), [0, 2, 1]
        model = Network(dims, values)
        arrays |= {f"{dims}d.{name}": value for name, value in values.items()}
        arrays |= {f"{dims}d.input": x, f"{dims}d.classes": np.array(classes)}
        for name, method in METHODS.items():
            if dims == 3 and name == "gradcam++":
                continue  # the package has it for images only
            targets = [ClassifierOutputTarget(k) for k in classes]
            with method(model, [model.relu]) as cam:
                shown = cam(torch.from_numpy(x), targets)
                found = cam.activations_and_grads
                activation, gradient = (
                    each[0].detach().numpy() for each in (found.activations, found.gradients)
                )
                raw = cam.get_cam_image(None, model.relu, targets, activation, gradient, False)
            arrays[f"{dims}d.{name}.raw"] = np.maximum(raw, 0)
            if dims == 2:
                arrays[f"{dims}d.{name}.shown"] = shown
    np.savez_compressed(Path(__file__).with_name("grad_cam.npz"), **arrays)


if __name__ == "__main__":
    main()
