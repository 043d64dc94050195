"""Checkpoints as folders that appear whole or not at all, and are checked before use."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

from torch import Tensor, nn

from medkit._core import check
from medkit._core.processes import place_among

from ._agreement import from_main, gather_objects, is_main
from ._averaged import AVERAGED, States, with_average, without_average
from ._checked import CheckpointError, Json, read_checked, write_checked
from ._checkpoint_folder import (
    META,
    SHARDS,
    STATE,
    WEIGHTS,
    CheckpointReport,
    encode_meta,
    inspect_folder,
    machine,
    read_meta,
    warn_of_other_machine,
)
from ._commit import replacing
from ._early_stopping import Mode
from ._loader import ResumableLoader
from ._placing import placed
from ._seeding import rng_state, set_rng_state
from ._shard_files import without_shards, write_shards
from ._sharded import is_sharded, whole
from ._shelf import Shelf
from ._state_tree import num_bytes, tensors, with_tensors
from ._stateful import Stateful
from ._weights import load_weights, match_weights, plain_name, put_weights, write_weights


class _Label(NamedTuple):
    """What stands on a checkpoint beside its content."""

    step: int
    metric: float | None
    extra: dict[str, Json]


class CheckpointManager:
    """Save and restore all that a run needs; a kill at any moment costs no more than time.

    A checkpoint is a folder ``step_000000120`` with ``weights.pt`` (the object registered as
    "model", readable by :func:`load_weights` and by torch alone), ``averaged_weights.pt`` (the same
    of a :class:`ModelEma`, if there is one), ``state.pt`` (all other objects and the global random
    state) and ``meta.json`` (size and CRC-32 of each, step, metric, versions). It is written under
    a hidden name, brought to the disk and renamed; only then are older ones deleted. Nothing is
    ever written into a finished checkpoint. Loading executes nothing. The folder must lie on a file
    system with atomic renames, which object stores are not.

    In a run of several processes every one makes the manager and calls its methods; the first one
    writes, and all go on or all raise. States are those of the first process, which are the same
    everywhere with ``DistributedDataParallel``; the random state and the place in a
    :class:`ResumableLoader` are kept for each. All must see the folder. Of a model that is cut
    between them (FSDP2) every process writes its own parts, of weights, optimizer and average, into
    a folder ``state``: torch's distributed checkpoint, checked like the rest and read without
    executing anything. Any number of processes can go on from it, cut or not, and from whole
    checkpoints too; :func:`merge_sharded` makes one weight file of it.

    Args:
        root: Folder of one run; made if needed.
        keep_last: Newest checkpoints that are kept.
        keep_best: Best ones by metric that are kept besides.
        metric: Name of the value that ranks checkpoints, e.g. "dice".
        mode: Whether a larger or a smaller value is better.
        every_steps: ``due`` after so many steps; None never.
        every_minutes: ``due`` after so many minutes; None never.
        fsync: Whether to wait for the disk, which a power failure needs and a kill does not.
        sharded: Whether a model in parts is saved in parts; with ``"never"`` the parts are put
            together first, in the memory of every process.

    Raises:
        ValueError: If an option is out of range, or ``root`` was ranked by another metric.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoints = CheckpointManager(folder, metric="dice")
        ...     checkpoints.register({"model": torch.nn.Linear(2, 1)})
        ...     print(checkpoints.save(10, metric=0.8).name)
        ...     print(checkpoints.restore())
        step_000000010
        10
    """

    def __init__(
        self,
        root: str | Path,
        *,
        keep_last: int = 2,
        keep_best: int = 1,
        metric: str | None = None,
        mode: Mode = "max",
        every_steps: int | None = None,
        every_minutes: float | None = None,
        fsync: bool = True,
        sharded: Literal["auto", "never"] = "auto",
    ) -> None:
        check.one_of("mode", mode, ("min", "max"))
        check.one_of("sharded", sharded, ("auto", "never"))
        self.root: Path = Path(root)
        self.keep_last: int = check.integer("keep_last", keep_last, minimum=1)
        self.keep_best: int = check.integer("keep_best", keep_best, minimum=0)
        self.metric: str | None = metric
        self.mode: Mode = mode
        self.fsync: bool = fsync
        self.sharded: Literal["auto", "never"] = sharded
        if every_steps is not None:
            check.integer("every_steps", every_steps, minimum=1)
        if every_minutes is not None:
            check.positive("every_minutes", every_minutes)
        self.every_steps: int | None = every_steps
        self.every_minutes: float | None = every_minutes
        self._objects: dict[str, Stateful] = {}
        self._saved_at = time.monotonic()
        self._shelf = Shelf(self.root, metric=metric, mode=mode, fsync=fsync)
        from_main(self._shelf.open)

    def register(self, objects: Mapping[str, Stateful]) -> None:
        """Add objects whose state is saved and restored.

        Args:
            objects: By name; a module named "model" gets a weight file of its own. The names "rng"
                and "ranks" are taken by the random states.

        Raises:
            ValueError: If a name is taken.
        """
        if taken := set(objects) & {*self._objects, "rng", "ranks"}:
            raise check.fail("objects", "of new names", ", ".join(sorted(taken)))
        self._objects.update(objects)

    def due(self, step: int) -> bool:
        """Return whether to save now, by ``every_steps`` or ``every_minutes``.

        Args:
            step: Steps taken so far.

        Returns:
            Whether a checkpoint is due.
        """
        if self.every_steps is not None and step % self.every_steps == 0:
            return True
        if self.every_minutes is None:
            return False
        limit = self.every_minutes
        return from_main(lambda: (time.monotonic() - self._saved_at) / 60 >= limit)

    def save(
        self,
        step: int,
        *,
        metric: float | None = None,
        extra: Mapping[str, Json] | None = None,
    ) -> Path:
        """Write a checkpoint, then delete those that are no longer kept.

        Args:
            step: Steps taken so far; a second checkpoint of one step gets a name of its own.
            metric: Value to rank it by; None or NaN leaves it out of the ranking.
            extra: Anything JSON can hold, to be read in ``meta.json``.

        Returns:
            The folder.

        Raises:
            OSError: If it cannot be written; all older checkpoints are then as they were.
            ValueError: If ``root`` holds a later step.
        """
        label = _Label(check.integer("step", step, minimum=0), metric, dict(extra or {}))
        own = {name: self._objects[name].state_dict() for name in self._per_process()}
        states, shards = self._states()
        ranks = gather_objects({**own, "rng": rng_state()})
        needed = num_bytes(states) + num_bytes(shards)
        folder = from_main(lambda: self._shelf.begin(step, needed=needed))
        try:
            files = write_shards(folder / SHARDS, shards, fsync=self.fsync) if shards else {}
            files = {f"{SHARDS}/{name}": entry for name, entry in files.items()}
            path = from_main(lambda: self._finish(folder, label, states, ranks[1:], files))
        except BaseException:
            if is_main():
                shutil.rmtree(folder, ignore_errors=True)
            raise
        self._saved_at = time.monotonic()
        return path

    def latest(self) -> Path | None:
        """Return the newest checkpoint that is whole.

        Returns:
            Its folder, or None if there is none. A damaged one is passed over with a warning that
            says why.
        """
        return from_main(self._shelf.latest)

    def best(self) -> Path | None:
        """Return the checkpoint with the best metric.

        Returns:
            Its folder, or None if none was ranked.
        """
        return from_main(lambda: next(iter(self._shelf.ranking()), None))

    def verify(self, path: str | Path) -> CheckpointReport:
        """Read every byte of a checkpoint and compare sizes and checksums.

        Args:
            path: The folder.

        Returns:
            The report; nothing is raised for what is wrong with it.
        """
        return inspect_folder(Path(path))

    def restore(
        self, *, path: str | Path | Literal["latest", "best"] = "latest", strict: bool = True
    ) -> int:
        """Put every registered object, and the global random state, back to a checkpoint.

        Everything is read and checked before anything changes. Call it after all objects are
        built. With "latest", damaged checkpoints are renamed out of the way and an older one is
        used.

        Args:
            path: A folder, or which.
            strict: Whether the checkpoint must hold exactly the registered objects.

        Returns:
            The step it was saved at.

        Raises:
            FileNotFoundError: If there is no checkpoint.
            CheckpointError: If it is damaged, or does not fit; for "latest", if all are damaged.
        """
        found, step = from_main(lambda: self._shelf.whole(path))
        states = cast("States", read_checked(found / STATE).value)
        random_states = cast("dict[str, dict[str, Tensor]]", states.pop("rng"))
        ranks = cast("list[States]", states.pop("ranks", []))
        if (found / AVERAGED).exists():
            average = read_checked(found / AVERAGED).value
            states = with_average(states, cast("Mapping[str, Tensor]", average))
        rank, _ = place_among(None, None)
        if 0 < rank <= len(ranks):
            own = ranks[rank - 1]
            random_states["0"] = cast("dict[str, Tensor]", own.pop("rng"))
            states.update(own)
        self._load(found, states, strict=strict)
        if path == "latest":
            from_main(lambda: self._shelf.set_aside_later(found))
        self._saved_at = time.monotonic()
        if is_main():
            warn_of_other_machine(read_meta(found))
        set_rng_state(random_states["0"])
        return step

    def _per_process(self) -> list[str]:
        """Return the names of the objects whose state is not the same in all processes."""
        return [n for n, o in self._objects.items() if isinstance(o, ResumableLoader)]

    def _states(self) -> tuple[States, dict[str, Tensor]]:
        """Return the states of all objects, and what of them lies in parts, by its place."""
        states: States = {n: o.state_dict() for n, o in self._objects.items()}
        if not any(is_sharded(tensor) for _, tensor in tensors(states)):
            return states, {}
        if self.sharded == "never":
            gathered = with_tensors(states, lambda _, tensor: whole(tensor))
            return cast("States", gathered), {}
        if "model" in states:
            weights = cast("Mapping[str, Tensor]", states["model"])
            states["model"] = {plain_name(name): tensor for name, tensor in weights.items()}
        rest, shards = without_shards(states)
        return cast("States", rest), shards

    def _finish(
        self,
        folder: Path,
        label: _Label,
        states: States,
        ranks: Sequence[Mapping[str, object]],
        files: dict[str, Json],
    ) -> Path:
        """Write what is whole and the description, and let the checkpoint appear."""
        weights: dict[str, Mapping[str, object]] = {}
        if not files:
            weights = {WEIGHTS: states.pop("model")} if "model" in states else {}
            states, average = without_average(states)
            weights |= {AVERAGED: average} if average else {}
        for name, held in weights.items():
            with replacing(folder / name, fsync=self.fsync) as stream:
                write_weights(stream, cast("Mapping[str, Tensor]", held))
            files[name] = {"size": stream.size, "crc32": stream.crc32}
        with replacing(folder / STATE, fsync=self.fsync) as stream:
            others = {"ranks": list(ranks)} if ranks else {}
            write_checked(stream, {**states, **others, "rng": {"0": rng_state()}})
        files[STATE] = {"size": stream.size, "crc32": stream.crc32}
        ranked = label.metric is not None and math.isfinite(label.metric)
        meta: dict[str, Json] = {
            "format": 1,
            "step": label.step,
            "metric": float(label.metric) if label.metric is not None and ranked else None,
            "ranked_by": [self.metric, self.mode] if ranked else None,
            "extra": label.extra,
            "files": files,
            "machine": machine(),
        }
        with replacing(folder / META, fsync=self.fsync) as stream:
            stream.write(encode_meta(meta))
        keep = {"keep_last": self.keep_last, "keep_best": self.keep_best}
        return self._shelf.commit(folder, label.step, **keep)

    def _load(self, folder: Path, states: States, *, strict: bool) -> None:
        model = cast("nn.Module | None", self._objects.get("model"))
        stored = {*states, *(["model"] if (folder / WEIGHTS).exists() else [])}
        if strict and stored != set(self._objects):
            raise CheckpointError(
                f"{folder} holds {', '.join(sorted(stored))}, "
                f"and registered are {', '.join(sorted(self._objects))}"
            )
        states = {name: state for name, state in states.items() if name in self._objects}
        if model is not None and "model" in states:
            weights = cast("Mapping[str, Tensor]", states["model"])
            report = match_weights(folder / STATE, weights, model, strict=strict)
            states["model"] = {name: weights[name] for name in report.loaded}
        states = placed(states, self._objects, folder / SHARDS)
        if model is not None and "model" in states:
            put_weights(cast("Mapping[str, Tensor]", states.pop("model")), model)
        elif model is not None and "model" in stored:
            load_weights(folder / WEIGHTS, model, strict=strict)
        for name, state in states.items():
            self._objects[name].load_state_dict(state)
