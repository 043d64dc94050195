"""How many batches a loader gives, and where in them a run stands."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Generic, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from medkit._core import check

from ._checked import CheckpointError
from ._seeding import rng_state, set_rng_state

Batch = TypeVar("Batch")


@runtime_checkable
class _Startable(Protocol):
    """A sampler of batches that can start anywhere in an epoch, as those of this library."""

    def start_at(self, batch: int) -> None: ...

    def fingerprint(self) -> dict[str, int]: ...


def num_batches(loader: Iterable[object]) -> int | None:
    """Return how many batches ``loader`` gives, or None where that is a guess or unknown."""
    if isinstance(getattr(loader, "dataset", None), IterableDataset):
        return None
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:
        return None


class ResumableLoader(Generic[Batch]):
    """A loader that knows its epoch and batch, and goes on from there after a restart.

    Each pass over it is one epoch. Its state holds the number of batches that the loop has
    consumed (not what workers have fetched ahead) and the random state from which this epoch's
    order was drawn. To continue inside an epoch it draws that order again, reads past the consumed
    batches, and puts the global random state back to where the checkpoint left it: the rest of the
    epoch is then the same, shuffling and augmentation included, for any map-style dataset whose
    randomness comes from the global generators or the loader's own. A dataset with random state
    of its own, and workers that persist over epochs, are beyond it. With a
    :class:`ResumableBatchSampler` nothing is read again and the number of workers may change: give
    it a dataset whose randomness is keyed, a :class:`SeededDataset` or a ``PatchDataset``. The same
    goes for ``medkit.data.CompleteGroupBatchSampler``, in a ``DataLoader`` or by itself.

    Args:
        loader: Usually a ``DataLoader``. Before each epoch ``set_epoch`` of it, its dataset,
            sampler and batch sampler is called, where there is one.

    Attributes:
        epoch: Present epoch, from 0.
        done: Batches of it that the loop has consumed.

    Example:
        >>> loader = ResumableLoader(range(4))
        >>> batches = iter(loader)
        >>> next(batches), next(batches), loader.state_dict()["done"], len(loader)
        (0, 1, 2, 2)
        >>> resumed = ResumableLoader(range(4))
        >>> resumed.load_state_dict(loader.state_dict())
        >>> list(resumed), resumed.epoch
        ([2, 3], 1)
    """

    def __init__(self, loader: Iterable[Batch]) -> None:
        self.loader = loader
        self.epoch = self.done = 0
        self._start: dict[str, Tensor] = {}

    @property
    def dataset(self) -> object:
        """The dataset behind the loader, or None."""
        return getattr(self.loader, "dataset", None)

    @property
    def per_epoch(self) -> int | None:
        """Batches of a whole epoch, this one, or None where that is a guess or unknown."""
        self._tell_epoch(self._sampler())
        return num_batches(self.loader)

    def __len__(self) -> int:
        if self.per_epoch is None:
            raise TypeError("the loader has no dependable length")
        return max(0, self.per_epoch - self.done)

    def __iter__(self) -> Iterator[Batch]:
        self._tell_epoch(self.loader, self.dataset, *self._samplers())
        if self.done:
            batches = self._replay()
        else:
            self._start = self._random_state()
            batches = iter(self.loader)
        for batch in _named_loss(batches):
            self.done += 1
            yield batch
        if not self.done:
            raise check.fail("loader", "one that gives batches in every epoch", self._nothing())
        self.epoch, self.done = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        """Return the place and the random state that this epoch began with.

        Returns:
            ``{"epoch": number, "done": batches, "start": random state}``, and the options of a
            sampler that can start anywhere.
        """
        start = self._start if self.done else self._random_state()
        place: dict[str, int | dict[str, Tensor]] = {"epoch": self.epoch, "done": self.done}
        sampler = self._sampler()
        if sampler is not None:
            names = sampler.fingerprint().items()
            place["sampler"] = {name: torch.tensor(value) for name, value in names}
        return {**place, "start": start}

    def load_state_dict(self, state_dict: Mapping[str, int | dict[str, Tensor]]) -> None:
        """Go to a place; the next pass gives the rest of that epoch.

        Args:
            state_dict: As ``state_dict`` gave it, from an equal loader.

        Raises:
            ValueError: If the batch sampler has other options.
        """
        self.epoch: int = check.integer("epoch", state_dict["epoch"], minimum=0)
        self.done: int = check.integer("done", state_dict["done"], minimum=0)
        self._check_sampler(cast("dict[str, Tensor]", state_dict.get("sampler", {})))
        self._start = cast("dict[str, Tensor]", state_dict["start"])
        self._set_generators(self._start)

    def _check_sampler(self, then: Mapping[str, Tensor]) -> None:
        sampler = self._sampler()
        now = {} if sampler is None else sampler.fingerprint()
        for name in then.keys() & now.keys():
            if now[name] != int(then[name]):
                raise check.fail(name, f"{int(then[name])}, as where the run stopped", now[name])

    def _nothing(self) -> str:
        return f"none in epoch {self.epoch + 1} from a {type(self.loader).__name__}"

    def _replay(self) -> Iterator[Batch]:
        """Draw the epoch's order again and read past the batches that are done."""
        now = rng_state()
        set_rng_state(self._start)
        self._set_generators(self._start)
        sampler = self._sampler()
        if sampler is not None:
            sampler.start_at(self.done)
        batches = iter(self.loader)
        skipped = self.done if sampler else sum(1 for _ in islice(batches, self.done))
        if skipped < self.done:
            raise CheckpointError(
                f"the loader gave {skipped} batches where {self.done} were done: "
                "the data or the number of steps changed since the checkpoint"
            )
        set_rng_state(now)
        return batches

    def _tell_epoch(self, *parts: object) -> None:
        for part in parts:
            set_epoch = getattr(part, "set_epoch", None)
            if callable(set_epoch):
                set_epoch(self.epoch)

    def _samplers(self) -> list[object]:
        return [getattr(self.loader, name, None) for name in ("sampler", "batch_sampler")]

    def _sampler(self) -> _Startable | None:
        """Return what gives the batches, if it can start anywhere."""
        found = (part for part in (self.loader, *self._samplers()) if isinstance(part, _Startable))
        return next(found, None)

    def _generators(self) -> dict[str, torch.Generator]:
        owners = {"loader": self.loader, "sampler": getattr(self.loader, "sampler", None)}
        found = {name: getattr(owner, "generator", None) for name, owner in owners.items()}
        return {name: g for name, g in found.items() if isinstance(g, torch.Generator)}

    def _random_state(self) -> dict[str, Tensor]:
        own = {f"generator:{name}": g.get_state() for name, g in self._generators().items()}
        return {**rng_state(), **own}

    def _set_generators(self, state: Mapping[str, Tensor]) -> None:
        for name, generator in self._generators().items():
            if f"generator:{name}" in state:
                generator.set_state(state[f"generator:{name}"])


def _named_loss(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the batches; say that a worker was lost where a broken pipe is all there is to see."""
    try:
        yield from batches
    except (ConnectionError, EOFError) as error:
        message = "DataLoader worker exited unexpectedly, killed perhaps, while it gave a batch"
        raise RuntimeError(message) from error
