"""Batches of whole groups go on from the middle of an epoch, as any others do."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from medkit.data import CompleteGroupBatchSampler
from medkit.losses import group_reconstruction_loss
from medkit.train import CheckpointManager, ResumableLoader, Stepper

IDS = torch.as_tensor(np.random.default_rng(0).integers(0, 30, 200))
X = torch.linspace(-1, 1, 200)[:, None]
TARGETS = torch.rand(30, generator=torch.Generator().manual_seed(1))
EPOCHS = 4


def _sampler() -> CompleteGroupBatchSampler:
    return CompleteGroupBatchSampler(IDS, max_size=20, seed=3)


def _loader(workers: int) -> Iterable[Tensor]:
    """Hand the indices of a batch to the dataset at once; leave the global generator alone."""
    loader: DataLoader[list[Tensor]] = DataLoader(
        TensorDataset(torch.arange(200)), sampler=_sampler(), batch_size=None, num_workers=workers,
        collate_fn=lambda values: values[0], generator=torch.Generator(),
    )  # fmt: skip
    return loader  # type: ignore[return-value]


class _Run:
    """A network of one coordinate with dropout, three batches to a step."""

    def __init__(self, batches: Iterable[Tensor], root: Path) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.stepper = Stepper(self.model, optimizer, accumulate=3)
        self.loader = ResumableLoader(batches)
        self.checkpoints = CheckpointManager(root, fsync=False)
        self.checkpoints.register(
            {"model": self.model, "stepper": self.stepper, "data": self.loader}
        )

    def go(self, *, until: int | None = None) -> None:
        """Train to the end, or save after a step and leave."""
        while self.loader.epoch < EPOCHS:
            for members, window in self.stepper.micro_batches(self.loader):
                groups, local = torch.unique(IDS[members], return_inverse=True)
                values = self.model(X[members])[:, 0].sigmoid()
                loss = group_reconstruction_loss(
                    values, TARGETS[groups], local, num_groups=len(groups), targets_per="group"
                )
                self.stepper.backward(loss, weight=float(len(groups)))
                self.stepper.step()
                if window.last and self.stepper.num_steps == until:
                    self.checkpoints.save(until)
                    return


@pytest.mark.parametrize(
    "make", [_sampler, lambda: _loader(0), lambda: _loader(2)], ids=["bare", "0", "2"]
)
@pytest.mark.parametrize("until", [2, 5, 9])
def test_a_run_over_whole_groups_goes_on_bit_for_bit(
    tmp_path: Path, make: Callable[[], Iterable[Tensor]], until: int
) -> None:
    whole = _Run(_sampler(), tmp_path / "whole")
    whole.go()
    _Run(_sampler(), tmp_path / "stopped").go(until=until)

    resumed = _Run(make(), tmp_path / "stopped")
    torch.rand(7)
    resumed.checkpoints.restore()
    resumed.go()

    assert resumed.stepper.num_steps == whole.stepper.num_steps
    pairs = zip(resumed.model.parameters(), whole.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_length_is_that_of_the_epoch_that_comes() -> None:
    loader = ResumableLoader(_sampler())
    lengths = []
    while loader.epoch < 12:
        expected = len(loader)
        lengths.append(sum(1 for _ in loader))
        assert lengths[-1] == expected

    assert len(set(lengths)) > 1


def test_what_is_done_is_not_loaded_again() -> None:
    asked: list[Tensor] = []

    class Items(TensorDataset):
        def __getitem__(self, index: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
            asked.append(index)
            return super().__getitem__(index)  # type: ignore[arg-type]

    data = DataLoader(Items(torch.arange(200)), sampler=_sampler(), batch_size=None)
    loader = ResumableLoader(data)
    loader.load_state_dict({**loader.state_dict(), "epoch": 1, "done": 4})
    expected = _sampler()
    expected.set_epoch(1)

    assert [values[0].tolist() for values in loader] == [b.tolist() for b in expected][4:]
    assert len(asked) == len(expected) - 4


def test_other_groups_are_refused() -> None:
    state = ResumableLoader(_sampler()).state_dict()

    with pytest.raises(ValueError, match="max_size must be 20, as where the run stopped; got 30"):
        ResumableLoader(CompleteGroupBatchSampler(IDS, max_size=30, seed=3)).load_state_dict(state)
