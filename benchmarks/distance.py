"""Boundary loss beside MONAI's, and what other packages take for distances and components.

    python benchmarks/distance.py

Everything sees the same scene in this one process, in turn, after a warm-up; the table gives
medians and fastest rounds, and ratios of the fastest. The packages edt and connected-components-3d
are measured where they are installed; medkit does not use them.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib import import_module, util

import torch
import torch.nn.functional as F
from monai.losses import BoundaryLoss as MonaiBoundaryLoss
from torch import Tensor

from _record import record
from medkit.losses import BoundaryLoss
from medkit.ops import connected_components, distance_transform, one_hot


def scene(size: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return logits and a class map of smooth blobs."""
    torch.manual_seed(0)
    field = torch.randn(2, classes, size, size, size)
    for _ in range(3):
        field = F.avg_pool3d(field, 5, 1, 2)
    field[:, 0] += field.std()
    return torch.randn(field.shape), field.argmax(1)


def step(loss: Callable[[Tensor], Tensor], logits: Tensor) -> None:
    loss(logits.detach().requires_grad_()).backward()


def tasks(size: int) -> dict[str, dict[str, Callable[[], object]]]:
    logits, labels = scene(size, 3)
    channels = one_hot(labels, num_classes=3)
    maps = distance_transform(channels > 0, signed=True, missing="edge")
    ours, theirs = BoundaryLoss(), MonaiBoundaryLoss(softmax=True)
    mask = labels[:1, None] > 0
    array = mask[0, 0].numpy()
    lesion = torch.zeros_like(labels)
    lesion[:, size // 3 : size // 2, size // 3 : size // 2, size // 3 : size // 2] = 1
    pair, binary = logits[:, :2], one_hot(lesion, num_classes=2)
    loss = f"boundary loss and gradient, 2x3x{size}^3"
    groups: dict[str, dict[str, Callable[[], object]]] = {
        loss: {
            "medkit": lambda: step(lambda x: ours(x, labels), logits),
            "medkit, map from the loader": lambda: step(
                lambda x: ours(x, labels, distance_map=maps), logits
            ),
            "MONAI": lambda: step(lambda x: theirs(x, channels), logits),
        },
        f"boundary loss and gradient, 2x2x{size}^3, a lesion": {
            "medkit": lambda: step(lambda x: ours(x, lesion), pair),
            "MONAI": lambda: step(lambda x: theirs(x, binary), pair),
        },
        f"distance inside, {size}^3": {"medkit": lambda: distance_transform(mask)},
        f"components (26), {size}^3": {
            "medkit": lambda: connected_components(mask, connectivity=26)
        },
    }
    if util.find_spec("edt"):
        edt = import_module("edt")
        groups[f"distance inside, {size}^3"]["edt"] = lambda: edt.edt(array)
    if util.find_spec("cc3d"):
        cc3d = import_module("cc3d")
        groups[f"components (26), {size}^3"]["cc3d"] = lambda: cc3d.connected_components(array)
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for title, named in tasks(options.size).items():
        times: dict[str, list[float]] = {name: [] for name in named}
        for repeat in range(options.repeats + 1):
            for name, run in named.items():
                start = time.perf_counter()
                run()
                if repeat:
                    times[name].append(time.perf_counter() - start)
        print(title)
        fastest = min(times["medkit"])
        record(title, "time", {name: min(each) for name, each in times.items()})
        for name, each in times.items():
            print(
                f"  {name:28} median {statistics.median(each):7.3f} s, fastest {min(each):7.3f} s,"
                f" {min(each) / fastest:5.2f} times medkit's"
            )


if __name__ == "__main__":
    main()
