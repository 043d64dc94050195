"""One of two processes that hold a model in parts.

Run as ``cut_model.py <rank> <folder>``; writes a JSON object with what it found.
"""

import json
import math
import os
import sys
from typing import Any

import torch
from torch import Tensor, distributed, nn

from medkit.train import ModelEma, Stepper, unwrap, wrap_model

STEPS, MICRO = 20, 4
PROBE = torch.linspace(-1, 1, 6).reshape(2, 3)


class Block(nn.Module):
    def __init__(self, width: int, *, norm: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width) if norm else nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.linear(x))) + x


def make(*, norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    blocks = [Block(7, norm=norm), nn.Sequential(Block(7, norm=norm))]
    return nn.Sequential(nn.Linear(3, 7), *blocks, nn.Linear(7, 1))


def cut(model: nn.Module, **options: Any) -> nn.Module:
    return wrap_model(
        model, strategy="fsdp", shard=lambda _, module: isinstance(module, Block), **options
    )


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


def whole(state: dict[str, Tensor]) -> dict[str, Tensor]:
    full = {n: t.full_tensor() if hasattr(t, "full_tensor") else t for n, t in state.items()}
    return {name: tensor.detach().clone() for name, tensor in full.items()}


def furthest(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a | b)


def train(model: nn.Module, x: Tensor, **options: Any) -> dict[str, Tensor]:
    """Take steps of two micro-batches; return the weights and the average at the end."""
    ema = ModelEma(model, decay=0.9, warmup=True)
    stepper = Stepper(model, adamw(model), accumulate=2, ema=ema, **options)
    for batch, _ in stepper.micro_batches(list(x)):
        stepper.backward(loss_of(model, batch))
        stepper.step()
    with ema.swap(model), torch.no_grad():
        averages = {f"ema {n}": t for n, t in whole(unwrap(model).state_dict()).items()}
        averages["ema outputs"] = model(PROBE)
    own = {"outputs": model(PROBE).detach(), **whole(unwrap(model).state_dict())}
    return own | averages


def trajectories(mine: Tensor, x: Tensor) -> dict[str, float]:
    together = x.reshape(2 * STEPS, 2 * MICRO, 3)
    return {
        name: furthest(train(cut(make()), mine, **options), train(make(), together, **options))
        for name, options in {"norm": {"clip_norm": 0.5}, "value": {"clip_value": 0.01}}.items()
    }


def statistics(mine: Tensor) -> dict[str, float]:
    """Running statistics beside those of DDP, whose averages see them at the same moments."""
    parts = cut(make(norm=True))
    replica = wrap_model(make(norm=True), strategy="ddp")
    for batch in mine[:6]:
        for model in (parts, replica):
            model(batch)
    own, theirs = (dict(unwrap(model).named_buffers()) for model in (parts, replica))
    return {"statistics": furthest(own, theirs)}


def narrow(x: Tensor) -> dict[str, object]:
    """In bf16 the blocks compute what a model of bf16 computes; the parameters stay float32."""
    parts, other = cut(make(), mixed_precision="bf16"), make().bfloat16()
    outputs, expected = parts(x[0]), other(x[0].bfloat16()).float()
    kinds = {str(p.dtype) for p in parts.parameters()}
    return {"narrow": [str(outputs.dtype), bool(torch.equal(outputs, expected)), *kinds]}


def refusals(rank: int, x: Tensor) -> dict[str, object]:
    """One process alone meets a NaN: in the loss, then in a gradient under a finite loss."""
    model = cut(make())
    before = whole(model.state_dict())
    found: list[str] = []
    for kind in ("loss", "gradient"):
        stepper = Stepper(model, adamw(model))
        loss = loss_of(model, x[0])
        stepper.backward(loss * math.nan if rank == 1 and kind == "loss" else loss)
        if rank == 1 and kind == "gradient":
            for parameter in model.parameters():
                parameter.grad.to_local().fill_(math.nan)  # type: ignore[union-attr]
        try:
            stepper.step()
        except FloatingPointError as error:
            found.append(str(error))
    stepper = Stepper(model, adamw(model), amp="fp16", nonfinite="skip")
    skipped = []
    for number in range(3):
        stepper.backward(loss_of(model, x[0]) * (math.inf if rank == number == 1 else 1))
        skipped.append(stepper.step().skipped)
    after = whole(model.state_dict())
    return {"refused": found, "skipped": skipped, "moved": furthest(before, after)}


def main() -> None:
    rank, folder = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    x = torch.randn(2 * STEPS, 2, MICRO, 3, generator=torch.Generator().manual_seed(1))
    mine = x[:, rank]
    found = {
        "trajectories": trajectories(mine, x),
        **statistics(mine),
        **narrow(mine),
        **refusals(rank, mine),
    }
    distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
