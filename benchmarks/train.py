"""What the training parts cost in each step, over the same loop written by hand.

    python benchmarks/train.py

Loops do the same work on the same data in one process, in turn: forward, loss, backward, norm and
clipping, a check that loss and norm are finite, AdamW, a schedule, and the loss read back for a
log. One is written by hand, one steps with ``Stepper``, one is a ``Run``, one is ``fit``. The
network is so small (16-32-1, batch 4) that nothing hides the overhead. Lightning, Fabric,
Accelerate and Ignite do the same beside them, those that are installed (``pip install lightning
pytorch-ignite accelerate``). A row gives the processor time of a batch, fastest and median, and of
its excess over the hand-written loop, between the fastest and as the median over the rounds.
Setting up is not counted: it is the time of a short run, which is taken off that of the long one.

The second table is the time to save and to load a file of weights beside ``torch.save`` and
``torch.load``. The third is how long a loop stands still for a checkpoint of a model with AdamW,
which is the whole time of saving: ``torch.save`` straight to its place, as most programs do it, the
same waiting for the disk, and a ``CheckpointManager``, which sums up, verifies and renames. The
fourth is the time of one update of an average and of an optimizer, beside torch's, on the
parameters of a SegFormer3D: the fastest of all rounds and its ratio to torch's.
"""

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from _record import record
from medkit.nn import SegFormer3D
from medkit.train import (
    CheckpointManager,
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
from train_peers import present

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


def started(peer: Callable[..., Callable[[], object]]) -> Callable[[Batches], None]:
    def loop(batches: Batches) -> None:
        peer(batches, parts(batches))()

    loop.__name__ = peer.__name__
    return loop


def microseconds(loop: Callable[[Batches], None], batches: Batches) -> float:
    seconds: list[float] = []
    for part in (batches[: len(batches) // 10], batches):
        start = time.process_time()
        loop(part)
        seconds.append(time.process_time() - start)
    return (seconds[1] - seconds[0]) / (len(batches) - len(batches) // 10) * 1e6


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
        (by_hand, (with_stepper, with_run, with_fit, *map(started, present(batches[:20], parts)))),
        (by_hand_accumulating, (with_fit_accumulating,)),
    )
    print(f"{'us a batch':<24}{'fastest':>10}{'excess':>10}{'median':>10}{'excess':>10}")
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
            fastest, least = min(measured), min(measured) - min(times[hand.__name__])
            middle = statistics.median(measured)
            print(f"{name:<24}{fastest:>10.1f}{least:>+10.1f}{middle:>10.1f}{excess:>+10.1f}")
        shortest = {name: min(measured) for name, measured in times.items()}
        ours = "with_fit" if "with_fit" in shortest else "with_fit_accumulating"
        peers = {name: each for name, each in shortest.items() if not name.startswith("with_")}
        task = f"training loop, a batch, {ours.removeprefix('with_').replace('_', ' ')}"
        record(task, "time", {"medkit": shortest[ours], **peers})


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
    for ours, theirs in (("save_weights", "torch.save"), ("load_weights", "torch.load")):
        values = {"medkit": min(seconds[ours]), theirs: min(seconds[theirs])}
        record(f"{ours}, {megabytes} MiB", "time", values)


def measure_stall(megabytes: int, rounds: int) -> None:
    model = nn.ParameterList(torch.randn(2**18) for _ in range(megabytes // 3))
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "plain.pt")
        managers = {
            f"CheckpointManager{', no fsync' * (not fsync)}": CheckpointManager(
                Path(folder, str(fsync)), keep_last=1, fsync=fsync
            )
            for fsync in (False, True)
        }
        for manager in managers.values():
            manager.register({"model": model, "optimizer": optimizer})

        def save(*, fsync: bool) -> None:
            with plain.open("wb") as stream:
                torch.save([model.state_dict(), optimizer.state_dict()], stream)
                if fsync:
                    os.fsync(stream.fileno())

        works: dict[str, Callable[[int], object]] = {
            "torch.save": lambda _: save(fsync=False),
            "torch.save and fsync": lambda _: save(fsync=True),
            **{name: manager.save for name, manager in managers.items()},
        }
        for number in range(rounds):
            for name, work in works.items():
                start = time.perf_counter()
                work(number)
                seconds.setdefault(name, []).append(time.perf_counter() - start)
    print(f"\n{f'stall, {megabytes // 3 * 3} MiB':<30}{'fastest ms':>12}{'median ms':>12}")
    for name, measured in seconds.items():
        print(f"{name:<30}{min(measured) * 1e3:>12.0f}{statistics.median(measured) * 1e3:>12.0f}")


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
        if name != peer:
            values = {"medkit": seconds, peer: fastest[peer]}
            record(f"{name}, {size:,} numbers", "time", values)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--rounds", type=int, default=40)
    arguments.add_argument("--megabytes", type=int, default=128)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    measure_steps(options.steps, options.rounds)
    measure_files(options.megabytes, 5)
    measure_stall(options.megabytes, 7)
    measure_updates(options.rounds)


if __name__ == "__main__":
    main()
