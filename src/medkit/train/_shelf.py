"""The checkpoints of one run in one folder: named, found, ranked and cleared away."""

import errno
import itertools
import os
import shutil
import warnings
from pathlib import Path

from medkit._core import check

from ._checked import CheckpointError, Json
from ._checkpoint_folder import NAME, inspect_folder, order, read_meta
from ._commit import remove_leftovers, sync_folder, temporary_name
from ._early_stopping import Mode


class Shelf:
    """What one process does with the folders of a run; it knows nothing of what they hold."""

    def __init__(self, root: Path, *, metric: str | None, mode: Mode, fsync: bool) -> None:
        self.root = root
        self.metric = metric
        self.mode: Mode = mode
        self.fsync = fsync

    def open(self) -> None:
        """Make the folder, clear away what was left unfinished, refuse another ranking."""
        self.root.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.root)
        for path in self.folders():
            ranked_by = read_meta(path).get("ranked_by")
            ours: list[Json] = [self.metric, self.mode]
            if ranked_by not in (None, ours):
                raise check.fail("metric and mode", f"{ranked_by}, as in {path}", ours)

    def folders(self) -> list[Path]:
        """Return the checkpoints, the oldest first."""
        return sorted((p for p in self.root.iterdir() if NAME.fullmatch(p.name)), key=order)

    def begin(self, step: int, *, needed: int) -> Path:
        """Return a new hidden folder to write ``needed`` bytes to."""
        folders = self.folders()
        if folders and order(folders[-1])[0] > step:
            raise check.fail("step", f"no earlier than {folders[-1].name} in {self.root}", step)
        free = shutil.disk_usage(self.root).free
        if free < needed:
            text = f"{os.strerror(errno.ENOSPC)}: {needed:,} bytes needed and {free:,} free"
            raise OSError(errno.ENOSPC, text, str(self.root))
        temporary = temporary_name(self._free_name(step))
        temporary.mkdir()
        return temporary

    def commit(self, temporary: Path, step: int, *, keep_last: int, keep_best: int) -> Path:
        """Give a complete folder its name, then delete those that are no longer kept."""
        path = temporary.rename(self._free_name(step))
        if self.fsync:
            sync_folder(self.root)
        folders = self.folders()
        kept = {*folders[-keep_last:], *self.ranking()[:keep_best]}
        for old in folders:
            if old not in kept:
                old.rename(hidden := temporary_name(old))
                shutil.rmtree(hidden)
        return path

    def latest(self) -> Path | None:
        """Return the newest checkpoint that is whole, warning of those passed over."""
        for path in reversed(self.folders()):
            problems = inspect_folder(path).problems
            if not problems:
                return path
            warnings.warn(
                f"passed over {path}: {'; '.join(problems)}", RuntimeWarning, stacklevel=4
            )
        return None

    def ranking(self) -> list[Path]:
        """Return the checkpoints that have a metric, the best first, older before newer."""
        values = {path: read_meta(path).get("metric") for path in self.folders()}
        ranked = {path: float(v) for path, v in values.items() if isinstance(v, int | float)}
        sign = 1 if self.mode == "min" else -1
        return sorted(ranked, key=lambda path: (sign * ranked[path], order(path)))

    def whole(self, path: str | Path) -> tuple[Path, int]:
        """Return the folder that is meant and its step, after reading every byte of it."""
        found = self._find(path)
        return found, whole_step(found)

    def set_aside_later(self, path: Path) -> None:
        """Rename the damaged checkpoints after ``path``, so that their steps can come again."""
        for later in self.folders():
            if order(later) > order(path):
                later.rename(later.with_name(f"damaged-{later.name}"))

    def _find(self, path: str | Path) -> Path:
        if path not in {"latest", "best"}:
            return Path(path)
        if found := self.latest() if path == "latest" else next(iter(self.ranking()), None):
            return found
        if path == "latest" and self.folders():
            raise CheckpointError(f"every checkpoint in {self.root} is damaged")
        why = ": none was saved with metric=" if self.folders() else ""
        raise FileNotFoundError(f"{self.root} holds no checkpoint to call {path}{why}")

    def _free_name(self, step: int) -> Path:
        first = self.root / f"step_{check.integer('step', step, minimum=0):09d}"
        again = (first.with_name(f"{first.name}-{count}") for count in itertools.count(1))
        return next(path for path in itertools.chain([first], again) if not path.exists())


def whole_step(path: Path) -> int:
    """Return the step of a checkpoint after reading every byte of it."""
    report = inspect_folder(path)
    if report.problems:
        raise CheckpointError(f"{path} is damaged: {'; '.join(report.problems)}")
    return report.step
