"""Dice and cross entropy over a batch in pieces: how exact, how slow, how lean.

    python benchmarks/whole_batch.py [--samples 8] [--size 32] [--device cuda]

One network, one batch, one process. "At once" is the gradient that is wanted; the others split the
batch into pieces of two samples: the usual accumulation (the mean of the losses of the pieces),
with medkit's loss and with MONAI's, and ``WholeBatch``. The error is that of the gradient in
float32 against the one in float64 at once, relative to its norm. Seconds are the fastest and the
median of some rounds taken in turn. Bytes are what autograd keeps for the backward pass at the same
time.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from medkit.losses import CrossEntropyLoss, DiceLoss, WeightedSum, WholeBatch

try:
    from monai.losses import DiceCELoss
except ImportError:
    DiceCELoss = None

Step = Callable[[nn.Module, Tensor, Tensor], None]
IGNORED = 255
PIECE = 2
LOSS = WeightedSum(
    {
        "dice": (1.0, DiceLoss(batch=True, ignore_index=IGNORED)),
        "ce": (1.0, CrossEntropyLoss(ignore_index=IGNORED)),
    }
)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 16)):
        layers += [nn.Conv3d(before, after, 3, padding=1), nn.InstanceNorm3d(after), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv3d(16, 4, 1))


def at_once(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    LOSS(model(images), labels).backward()


def mean_of_pieces(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    for x, y in zip(images.split(PIECE), labels.split(PIECE), strict=True):
        (LOSS(model(x), y) * PIECE / len(images)).backward()


def monai(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    loss = DiceCELoss(softmax=True, to_onehot_y=True, batch=True)
    for x, y in zip(images.split(PIECE), labels.split(PIECE), strict=True):
        (loss(model(x), y[:, None]) * PIECE / len(images)).backward()


def whole_batch(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    loss, pieces = (
        WholeBatch(LOSS),
        list(zip(images.split(PIECE), labels.split(PIECE), strict=True)),
    )
    with torch.no_grad():
        for x, y in pieces:
            loss.add(model(x), y)
    for x, y in pieces:
        loss(model(x), y).backward()


def gradient(step: Step, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    model.zero_grad()
    step(model, images, labels)
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def kept(step: Step, model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Return the largest number of bytes that autograd keeps at one time."""
    seen: dict[int, int] = {}
    peak = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal peak
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        peak = max(peak, sum(seen.values()))
        return tensor

    class Counting(nn.Module):
        """The network, whose every pass starts with nothing kept."""

        def forward(self, x: Tensor) -> Tensor:
            seen.clear()
            return model(x)

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step(Counting(), images, labels)
    return peak


def scene(samples: int, size: int, device: str, *, ignored: bool) -> tuple[Tensor, Tensor]:
    """Return images and labels; classes, and ignored voxels, are spread unevenly over samples."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(samples, 1, size, size, size, generator=generator)
    labels = torch.zeros(images[:, 0].shape, dtype=torch.int64)
    for number in range(samples):
        for label in range(1, 4):
            edge = size * ((number + 2 * label) % samples) // samples
            labels[number, label * size // 4 :, :edge, :edge] = label
        if ignored:
            labels[number, : size * number // samples] = IGNORED
    return images.to(device), labels.to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    model = network().to(options.device)
    steps: dict[str, Step] = {
        "at once": at_once,
        "mean of pieces": mean_of_pieces,
        "WholeBatch": whole_batch,
    }
    for ignored in (False, True):
        images, labels = scene(options.samples, options.size, options.device, ignored=ignored)
        runs = dict(steps)
        if DiceCELoss is not None and not ignored:  # it has no ignored voxels
            runs["mean of pieces, MONAI"] = monai
        exact = gradient(at_once, network().to(images.device).double(), images.double(), labels)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, step in runs.items():
                start = time.perf_counter()
                gradient(step, model, images, labels).sum().item()
                seconds[name].append(time.perf_counter() - start)
        print(f"\n{options.samples} x {options.size}^3, ignored voxels: {ignored}")
        print(f"{'':24}{'error':>10}{'fastest s':>11}{'median s':>10}{'MB kept':>9}")
        for name, step in runs.items():
            off = gradient(step, model, images, labels) - exact
            print(
                f"{name:24}{float(off.norm() / exact.norm()):10.1e}{min(seconds[name]):11.3f}"
                f"{statistics.median(seconds[name]):10.3f}"
                f"{kept(step, model, images, labels) / 1e6:9.1f}"
            )


if __name__ == "__main__":
    main()
