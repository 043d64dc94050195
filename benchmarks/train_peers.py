"""The loop of benchmarks/train.py in other libraries: the same work, their own way of calling it.

Each gives the function that does the steps, after whatever it sets up, so that only steps are
timed. Clipping by norm, AdamW, a schedule stepped each time, and the loss read back for a log.
"""

import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from medkit.train import WarmupCosine

Batches = list[dict[str, Tensor]]
Parts = tuple[nn.Module, torch.optim.Optimizer, WarmupCosine]
MSE = nn.functional.mse_loss


class _OneLoader:
    """Batches that Lightning does not take for a list of loaders."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(self.batches)


def lightning(batches: Batches, parts: Parts) -> Callable[[], object]:
    pl = importlib.import_module("lightning.pytorch")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    network, optimizer, schedule = parts
    losses: list[float] = []

    class Module(pl.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def training_step(self, batch):
            loss = MSE(self.network(batch["image"]), batch["label"])
            losses.append(loss.item())
            return loss

        def configure_optimizers(self):
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    return lambda: trainer.fit(Module(), _OneLoader(batches))


def fabric(batches: Batches, parts: Parts) -> Callable[[], object]:
    library = importlib.import_module("lightning_fabric")
    network, plain, schedule = parts
    runner = library.Fabric(accelerator="cpu", devices=1)
    model, optimizer = runner.setup(network, plain)
    losses: list[float] = []

    def loop() -> None:
        for batch in batches:
            loss = MSE(model(batch["image"]), batch["label"])
            runner.backward(loss)
            runner.clip_gradients(model, optimizer, max_norm=1.0, error_if_nonfinite=True)
            losses.append(loss.item())
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

    return loop


def accelerate(batches: Batches, parts: Parts) -> Callable[[], object]:
    library = importlib.import_module("accelerate")
    runner = library.Accelerator(cpu=True)
    model, optimizer, schedule = runner.prepare(*parts)
    losses: list[float] = []

    def loop() -> None:
        for batch in batches:
            with runner.accumulate(model):
                loss = MSE(model(batch["image"]), batch["label"])
                runner.backward(loss)
                runner.clip_grad_norm_(model.parameters(), 1.0)
                losses.append(loss.item())
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()

    return loop


def ignite(batches: Batches, parts: Parts) -> Callable[[], object]:
    library = importlib.import_module("ignite.engine")
    model, optimizer, schedule = parts
    parameters = list(model.parameters())

    def update(_, batch) -> float:
        loss = MSE(model(batch["image"]), batch["label"])
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        value = loss.item()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        return value

    engine = library.Engine(update)
    return lambda: engine.run(batches, max_epochs=1)


PEERS = (fabric, accelerate, ignite, lightning)


def present(batches: Batches, make: Callable[[Batches], Parts]) -> list[Callable[..., object]]:
    """Return the peers that run here, and say why others do not."""
    warnings.filterwarnings("ignore", module=r"lightning|lightning_fabric|accelerate|ignite")
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    importlib.import_module("_torchvision_shim").install()
    found: list[Callable[..., object]] = []
    for peer in PEERS:
        try:
            peer(batches, make(batches))()
        except (ImportError, OSError, RuntimeError) as error:
            print(f"{peer.__name__} left out: {error}")
        else:
            found.append(peer)
    return found
