"""One of two processes that share a batch.

Run as ``whole_batch_processes.py <rank> <folder>``; writes a JSON object of relative distances to
the gradient of all samples in one process. Rank 0 has three pieces of seven samples, rank 1 two.
"""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from medkit.losses import DynamicWeightAverage, GradNorm, WholeBatch
from medkit.train import Stepper
from unit.losses.test_whole_batch import (
    at_once,
    batch,
    dice_and_cross_entropy,
    gradient,
    network,
    relative,
    split,
)

SHARES = (slice(0, 3), slice(3, 7))


def share(rank: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    images, labels, _ = batch(dtype)
    return images[SHARES[rank]], labels[SHARES[rank]]


def replicas(dtype: torch.dtype) -> DistributedDataParallel:
    return DistributedDataParallel(network(dtype))


def one_piece(rank: int, loss: nn.Module) -> Tensor:
    model = replicas(torch.float64)
    images, labels = share(rank, torch.float64)
    loss(model(images), labels).backward()
    return gradient(model)


def pieces(rank: int, dtype: torch.dtype) -> Tensor:
    model, loss = replicas(dtype), WholeBatch(dice_and_cross_entropy())
    parts = list(split(*share(rank, dtype), size=1 + rank))
    with torch.no_grad():
        for images, labels in parts:
            loss.add(model(images), labels)
    for number, (images, labels) in enumerate(parts, 1):
        with nullcontext() if number == len(parts) else model.no_sync():
            loss(model(images), labels).backward()
    return gradient(model)


def stepper(rank: int) -> Tensor:
    """Return minus the step of plain gradient descent: the gradient."""
    model = replicas(torch.float64)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    steps = Stepper(model, torch.optim.SGD(model.parameters(), lr=1.0), accumulate=9)
    loss = WholeBatch(dice_and_cross_entropy(), gradients="mean")
    parts = list(split(*share(rank, torch.float64), size=1 + rank))
    with torch.no_grad():
        for images, labels in parts:
            loss.add(model(images), labels)
    for (images, labels), _ in steps.micro_batches(parts):
        steps.backward(loss(model(images), labels))
        steps.step()
    return before - torch.cat([p.detach().flatten() for p in model.parameters()])


def weights(rank: int) -> float:
    """Return how far rules that see unlike losses in each process are from one that sees means."""
    here, alone = DynamicWeightAverage(["a", "b"]), DynamicWeightAverage(["a", "b"])
    for a, b in ((1.0, 2.0), (0.5, 4.0)):
        here.update({"a": a * (1 + rank), "b": b * (2 - rank)})
    alone.weight = 2 * torch.softmax(torch.tensor([0.5, 2.0]) / 2, 0)
    x = torch.tensor([1.0, float(rank)], requires_grad=True)
    norms, expected = GradNorm(["a", "b"], lr=0.01), GradNorm(["a", "b"], lr=0.01)
    norms.update({"a": x.square().sum(), "b": 5 * x.sum()}, [x])
    sizes = torch.tensor([2.0, 1.0]).norm(), torch.tensor([5.0, 5.0]).norm()
    moved = torch.stack([1 + 0.01 * sizes[0], 1 - 0.01 * sizes[1]])
    expected.weight = 2 * moved / moved.sum()
    pairs = (here, alone), (norms, expected)
    return max(float((a.weight - b.weight).abs().max()) for a, b in pairs)


def disagreement(values: Tensor) -> float:
    """Return how far two processes are apart."""
    both = [torch.empty_like(values) for _ in range(2)]
    distributed.all_gather(both, values.detach())
    return float((both[0] - both[1]).abs().max())


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    loss = dice_and_cross_entropy()
    wide, narrow = at_once(loss, torch.float64)[1], at_once(loss, torch.float32)[1]
    exact = pieces(rank, torch.float64)
    found = {
        "one piece each": relative(one_piece(rank, WholeBatch(loss)), wide),
        "pieces of unequal number": relative(exact, wide),
        "pieces of unequal number, float32": relative(pieces(rank, torch.float32), narrow),
        "through a stepper": relative(stepper(rank), wide),
        "processes in step with each other": disagreement(exact),
        "adaptive weights": weights(rank),
        "mean over processes": relative(one_piece(rank, loss), wide),
    }
    distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
