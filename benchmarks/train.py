"""What the training parts cost in each step, over the same loop written by hand.

    python benchmarks/train.py

Four loops do the same work on the same data in one process, in turn: forward, loss, backward,
norm and clipping, a check that loss and norm are finite, AdamW, a schedule, and the loss read
back for a log. One is written by hand, one steps with ``Stepper``, one is a ``Run``, one is
``fit``. The network is
so small (16-32-1, batch 4) that nothing hides the overhead. A row gives the median processor
time of a batch and of its excess over the hand-written loop in the same round. The second table
is the time to save and to load a file of weights beside ``torch.save`` and ``torch.load``. The
third is the time of one update of an average and of an optimizer, beside torch's, on the parameters
of a SegFormer3D: the fastest of all rounds and its ratio to torch's.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medkit.nn import SegFormer3D
from medkit.train import (
    KerasAdamW,
    ModelEma,
    ResumableLoader,
    Run,
    Stepper,
    WarmupCosine,
    fit,
    load_weights,
    save_weights,
)

Batches = list[dict[str, Tensor]]
ACCUMULATE = 4


def parts(batches: Batches) -> tuple[nn.Module, torch.optim.Optimizer, WarmupCosine]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return model, optimizer, WarmupCosine(optimizer, len(batches), warmup_steps=10)


def by_hand(batches: Batches) -> None:
    model, optimizer, schedule = parts(batches)
    parameters = list(model.parameters())
    log: list[tuple[float, float, float]] = []
    for batch in batches:
        loss = nn.functional.mse_loss(model(batch["image"]), batch["label"])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        value, length = loss.item(), norm.item()
        if not (math.isfinite(value) and math.isfinite(length)):
            raise FloatingPointError
        log.append((value, optimizer.param_groups[0]["lr"], length))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def with_stepper(batches: Batches) -> None:
    model, optimizer, schedule = parts(batches)
    stepper = Stepper(model, optimizer, scheduler=schedule, clip_norm=1.0)
    log: list[tuple[float, float, float]] = []
    for batch, _ in stepper.micro_batches(batches):
        with stepper.autocast():
            loss = nn.functional.mse_loss(model(batch["image"]), batch["label"])
        stepper.backward(loss)
        info = stepper.step()
        log.append((info.loss, info.lr, info.grad_norm))


def with_run(batches: Batches) -> None:
    model, optimizer, schedule = parts(batches)
    stepper = Stepper(model, optimizer, scheduler=schedule, clip_norm=1.0)
    with Run(stepper, ResumableLoader(batches), progress=False) as run:
        for _ in run.epochs(1):
            for batch in run.batches():
                run.step(nn.functional.mse_loss(model(batch["image"]), batch["label"]))


def with_fit(batches: Batches) -> None:
    model, optimizer, schedule = parts(batches)
    stepper = Stepper(model, optimizer, scheduler=schedule, clip_norm=1.0)
    fit(model, batches, nn.functional.mse_loss, stepper=stepper, epochs=1, progress=False)


def by_hand_accumulating(batches: Batches) -> None:
    model, optimizer, schedule = parts(batches)
    parameters = list(model.parameters())
    log: list[tuple[float, float, float]] = []
    losses: list[Tensor] = []
    for number, batch in enumerate(batches, start=1):
        loss = nn.functional.mse_loss(model(batch["image"]), batch["label"])
        (loss / ACCUMULATE).backward()
        losses.append(loss.detach())
        if number % ACCUMULATE:
            continue
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        value, length = torch.stack(losses).mean().item(), norm.item()
        losses.clear()
        if not (math.isfinite(value) and math.isfinite(length)):
            raise FloatingPointError
        log.append((value, optimizer.param_groups[0]["lr"], length))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def with_fit_accumulating(batches: Batches) -> None:
    model, optimizer, schedule = parts(batches)
    stepper = Stepper(model, optimizer, scheduler=schedule, clip_norm=1.0, accumulate=ACCUMULATE)
    fit(model, batches, nn.functional.mse_loss, stepper=stepper, epochs=1, progress=False)


def microseconds(loop: Callable[[Batches], None], batches: Batches) -> float:
    start = time.process_time()
    loop(batches)
    return (time.process_time() - start) / len(batches) * 1e6


def measure_steps(steps: int, rounds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [
        {
            "image": torch.randn(4, 16, generator=generator),
            "label": torch.randn(4, 1, generator=generator),
        }
        for _ in range(steps)
    ]
    pairs = (
        (by_hand, (with_stepper, with_run, with_fit)),
        (by_hand_accumulating, (with_fit_accumulating,)),
    )
    print(f"{'loop':<24}{'us/batch':>10}{'excess':>10}")
    for hand, others in pairs:
        loops = (hand, *others)
        times: dict[str, list[float]] = {loop.__name__: [] for loop in loops}
        for loop in loops:
            microseconds(loop, batches[:200])
        for _ in range(rounds):
            for loop in loops:
                times[loop.__name__].append(microseconds(loop, batches))
        for name, measured in times.items():
            pairs_of_rounds = zip(measured, times[hand.__name__], strict=True)
            excess = statistics.median(ours - theirs for ours, theirs in pairs_of_rounds)
            print(f"{name:<24}{statistics.median(measured):>10.1f}{excess:>+10.1f}")


def measure_files(megabytes: int, rounds: int) -> None:
    model = nn.ParameterList(torch.randn(2**18) for _ in range(megabytes))
    seconds: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        seconds.setdefault(name, []).append(time.perf_counter() - start)

    with tempfile.TemporaryDirectory() as folder:
        ours, plain = Path(folder, "ours.pt"), Path(folder, "plain.pt")
        for _ in range(rounds):
            timed("torch.save", lambda: torch.save(model.state_dict(), plain))
            timed("save_weights", lambda: save_weights(model, ours))
            timed("torch.load", lambda: model.load_state_dict(torch.load(plain)))
            timed("load_weights", lambda: load_weights(ours, model))
    print(f"\n{f'{megabytes} MiB of weights':<24}{'ms':>10}")
    for name, measured in seconds.items():
        print(f"{name:<24}{statistics.median(measured) * 1e3:>10.0f}")


def measure_updates(rounds: int) -> None:
    model = SegFormer3D(4, 3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    ours = ModelEma(model, decay=0.999)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=True)
    keras = KerasAdamW(model.parameters(), lr=1e-4)
    updates: dict[str, Callable[[], object]] = {
        "AveragedModel": lambda: theirs.update_parameters(model),
        "ModelEma": lambda: ours.update(model),
        "torch AdamW": adamw.step,
        "KerasAdamW": keras.step,
    }
    fastest = dict.fromkeys(updates, math.inf)
    for _ in range(rounds):
        for name, update in updates.items():
            start = time.perf_counter()
            update()
            fastest[name] = min(fastest[name], time.perf_counter() - start)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"\n{f'update of {size:,} numbers':<32}{'ms':>8}{'ratio':>8}")
    for name, seconds in fastest.items():
        peer = "AveragedModel" if name in {"AveragedModel", "ModelEma"} else "torch AdamW"
        print(f"{name:<32}{seconds * 1e3:>8.2f}{seconds / fastest[peer]:>8.2f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=1000)
    arguments.add_argument("--rounds", type=int, default=11)
    arguments.add_argument("--megabytes", type=int, default=128)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    measure_steps(options.steps, options.rounds)
    measure_files(options.megabytes, 5)
    measure_updates(options.rounds)


if __name__ == "__main__":
    main()
