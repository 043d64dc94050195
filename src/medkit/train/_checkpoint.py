"""Checkpoints as folders that appear whole or not at all, and are checked before use."""

import errno
import itertools
import math
import os
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from torch import Tensor, nn

from medkit._core import check
from medkit._core.processes import place_among

from ._agreement import from_main, gather_objects, is_main
from ._averaged import AVERAGED, with_average, without_average
from ._checked import CheckpointError, Json, read_checked, write_checked
from ._checkpoint_folder import (
    META,
    NAME,
    STATE,
    WEIGHTS,
    CheckpointReport,
    encode_meta,
    inspect_folder,
    machine,
    num_bytes,
    order,
    read_meta,
    warn_of_other_machine,
)
from ._commit import remove_leftovers, replacing, sync_folder, temporary_name
from ._early_stopping import Mode
from ._loader import ResumableLoader
from ._seeding import rng_state, set_rng_state
from ._sharded import is_sharded
from ._stateful import Stateful
from ._weights import load_weights, write_weights


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
    :class:`ResumableLoader` are kept for each. All must see the folder. Shards (FSDP2) are refused.

    Args:
        root: Folder of one run; made if needed.
        keep_last: Newest checkpoints that are kept.
        keep_best: Best ones by metric that are kept besides.
        metric: Name of the value that ranks checkpoints, e.g. "dice".
        mode: Whether a larger or a smaller value is better.
        every_steps: ``due`` after so many steps; None never.
        every_minutes: ``due`` after so many minutes; None never.
        fsync: Whether to wait for the disk, which a power failure needs and a kill does not.

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
    ) -> None:
        check.one_of("mode", mode, ("min", "max"))
        self.root: Path = Path(root)
        self.keep_last: int = check.integer("keep_last", keep_last, minimum=1)
        self.keep_best: int = check.integer("keep_best", keep_best, minimum=0)
        self.metric: str | None = metric
        self.mode: Mode = mode
        self.fsync: bool = fsync
        if every_steps is not None:
            check.integer("every_steps", every_steps, minimum=1)
        if every_minutes is not None:
            check.positive("every_minutes", every_minutes)
        self.every_steps: int | None = every_steps
        self.every_minutes: float | None = every_minutes
        self._objects: dict[str, Stateful] = {}
        self._saved_at = time.monotonic()
        from_main(self._open)

    def register(self, objects: Mapping[str, Stateful]) -> None:
        """Add objects whose state is saved and restored.

        Args:
            objects: By name; a module named "model" gets a weight file of its own. The names "rng"
                and "ranks" are taken by the random states.

        Raises:
            ValueError: If a name is taken, or a model is cut between processes (FSDP2).
        """
        if taken := set(objects) & {*self._objects, "rng", "ranks"}:
            raise check.fail("objects", "of new names", ", ".join(sorted(taken)))
        for name, thing in objects.items():
            if isinstance(thing, nn.Module) and any(map(is_sharded, thing.parameters())):
                raise check.fail(name, "a model of whole tensors", "shards (FSDP2)")
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
        own = {name: self._objects[name].state_dict() for name in self._per_process()}
        ranks = gather_objects({**own, "rng": rng_state()})
        path = from_main(lambda: self._save(step, metric, dict(extra or {}), ranks[1:]))
        self._saved_at = time.monotonic()
        return path

    def latest(self) -> Path | None:
        """Return the newest checkpoint that is whole.

        Returns:
            Its folder, or None if there is none. A damaged one is passed over with a warning that
            says why.
        """
        return from_main(self._latest)

    def best(self) -> Path | None:
        """Return the checkpoint with the best metric.

        Returns:
            Its folder, or None if none was ranked.
        """
        return from_main(lambda: next(iter(self._ranking()), None))

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
        found, step = from_main(lambda: self._whole(path))
        states = cast("dict[str, Mapping[str, object]]", read_checked(found / STATE).value)
        if (found / AVERAGED).exists():
            average = read_checked(found / AVERAGED).value
            states = with_average(states, cast("Mapping[str, Tensor]", average))
        random_states = cast("dict[str, dict[str, Tensor]]", states.pop("rng"))
        ranks = cast("list[dict[str, Mapping[str, object]]]", states.pop("ranks", []))
        rank, _ = place_among(None, None)
        if 0 < rank <= len(ranks):
            own = ranks[rank - 1]
            random_states["0"] = cast("dict[str, Tensor]", own.pop("rng"))
            states.update(own)
        self._load(found, states, strict=strict)
        if path == "latest":
            from_main(lambda: self._set_aside_later(found))
        self._saved_at = time.monotonic()
        if is_main():
            warn_of_other_machine(read_meta(found))
        set_rng_state(random_states["0"])
        return step

    def _open(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.root)
        for path in self._folders():
            ranked_by = read_meta(path).get("ranked_by")
            ours: list[Json] = [self.metric, self.mode]
            if ranked_by not in (None, ours):
                raise check.fail("metric and mode", f"{ranked_by}, as in {path}", ours)

    def _per_process(self) -> list[str]:
        """Return the names of the objects whose state is not the same in all processes."""
        return [n for n, o in self._objects.items() if isinstance(o, ResumableLoader)]

    def _save(
        self,
        step: int,
        metric: float | None,
        extra: dict[str, Json],
        ranks: Sequence[Mapping[str, object]],
    ) -> Path:
        folders = self._folders()
        if folders and order(folders[-1])[0] > step:
            raise check.fail("step", f"no earlier than {folders[-1].name} in {self.root}", step)
        path = self._free_name(check.integer("step", step, minimum=0))
        temporary = temporary_name(path)
        try:
            temporary.mkdir()
            self._write(temporary, step, metric, extra, ranks)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if self.fsync:
            sync_folder(self.root)
        self._prune()
        return path

    def _latest(self) -> Path | None:
        for path in reversed(self._folders()):
            problems = self.verify(path).problems
            if not problems:
                return path
            warnings.warn(
                f"passed over {path}: {'; '.join(problems)}", RuntimeWarning, stacklevel=3
            )
        return None

    def _folders(self) -> list[Path]:
        return sorted((p for p in self.root.iterdir() if NAME.fullmatch(p.name)), key=order)

    def _find(self, path: str | Path) -> Path:
        if path not in {"latest", "best"}:
            return Path(path)
        ranked = self._ranking()
        if found := self._latest() if path == "latest" else next(iter(ranked), None):
            return found
        if path == "latest" and self._folders():
            raise CheckpointError(f"every checkpoint in {self.root} is damaged")
        why = ": none was saved with metric=" if self._folders() else ""
        raise FileNotFoundError(f"{self.root} holds no checkpoint to call {path}{why}")

    def _whole(self, path: str | Path) -> tuple[Path, int]:
        """Return the folder that is meant and its step, after reading every byte of it."""
        found = self._find(path)
        report = self.verify(found)
        if report.problems:
            raise CheckpointError(f"{found} is damaged: {'; '.join(report.problems)}")
        return found, report.step

    def _free_name(self, step: int) -> Path:
        first = self.root / f"step_{step:09d}"
        again = (first.with_name(f"{first.name}-{count}") for count in itertools.count(1))
        return next(path for path in itertools.chain([first], again) if not path.exists())

    def _write(
        self,
        folder: Path,
        step: int,
        metric: float | None,
        extra: dict[str, Json],
        ranks: Sequence[Mapping[str, object]],
    ) -> None:
        model = self._objects.get("model")
        states = {n: o.state_dict() for n, o in self._objects.items() if n != "model"}
        weights: Mapping[str, object] = {} if model is None else model.state_dict()
        self._require_space(num_bytes(weights) + num_bytes(states))
        states, average = without_average(states)
        files: dict[str, Json] = {}
        for file, tensors in ((WEIGHTS, weights), (AVERAGED, average)):
            if tensors or (file == WEIGHTS and model is not None):
                with replacing(folder / file, fsync=self.fsync) as stream:
                    write_weights(stream, cast("Mapping[str, Tensor]", tensors))
                files[file] = {"size": stream.size, "crc32": stream.crc32}
        with replacing(folder / STATE, fsync=self.fsync) as stream:
            others = {"ranks": list(ranks)} if ranks else {}
            write_checked(stream, {**states, **others, "rng": {"0": rng_state()}})
        files[STATE] = {"size": stream.size, "crc32": stream.crc32}
        ranked = metric is not None and math.isfinite(metric)
        meta: dict[str, Json] = {
            "format": 1,
            "step": step,
            "metric": float(metric) if metric is not None and ranked else None,
            "ranked_by": [self.metric, self.mode] if ranked else None,
            "extra": extra,
            "files": files,
            "machine": machine(),
        }
        with replacing(folder / META, fsync=self.fsync) as stream:
            stream.write(encode_meta(meta))

    def _require_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.root).free
        if free < needed:
            text = f"{os.strerror(errno.ENOSPC)}: {needed:,} bytes needed and {free:,} free"
            raise OSError(errno.ENOSPC, text, str(self.root))

    def _load(self, folder: Path, states: dict[str, Mapping[str, object]], *, strict: bool) -> None:
        model = self._objects.get("model")
        stored = {*states, *(["model"] if (folder / WEIGHTS).exists() else [])}
        if strict and stored != set(self._objects):
            raise CheckpointError(
                f"{folder} holds {', '.join(sorted(stored))}, "
                f"and registered are {', '.join(sorted(self._objects))}"
            )
        if model is not None and "model" in stored:
            load_weights(folder / WEIGHTS, cast("nn.Module", model), strict=strict)
        for name, thing in self._objects.items():
            if name in states:
                thing.load_state_dict(states[name])

    def _set_aside_later(self, path: Path) -> None:
        """Rename the damaged checkpoints after ``path``, so that their steps can come again."""
        for later in self._folders():
            if order(later) > order(path):
                later.rename(later.with_name(f"damaged-{later.name}"))

    def _ranking(self) -> list[Path]:
        """Return the checkpoints that have a metric, the best first, older before newer."""
        values = {path: read_meta(path).get("metric") for path in self._folders()}
        ranked = {path: float(v) for path, v in values.items() if isinstance(v, int | float)}
        sign = 1 if self.mode == "min" else -1
        return sorted(ranked, key=lambda path: (sign * ranked[path], order(path)))

    def _prune(self) -> None:
        folders = self._folders()
        kept = {*folders[-self.keep_last :], *self._ranking()[: self.keep_best]}
        for path in folders:
            if path not in kept:
                path.rename(hidden := temporary_name(path))
                shutil.rmtree(hidden)
