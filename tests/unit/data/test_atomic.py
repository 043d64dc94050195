"""A file appears whole or not at all, however the writing ends."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medkit.data import Volume, read, write
from unit.data.volumes import volume

KILLED = """
import os, signal, sys
import numpy as np, torch
from medkit._core import atomic
from medkit.data import Volume, write, _gzip

new = Volume(torch.full((1, 24, 256, 256), 2, dtype=torch.int16), np.eye(4))
die = lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL)

def die_at_block(number):
    calls, deflate = iter(range(99)), _gzip._deflate
    return lambda *args: die() if next(calls) == number else deflate(*args)

phases = {f"block {n}": (_gzip, "_deflate", die_at_block(n)) for n in range(3)}
phases["flushed"] = (os, "fsync", die)
phases["synced"] = (atomic.Path, "replace", die)
phases["renamed"] = (atomic, "_sync_folder", die)
for folder in sys.argv[1:]:
    for phase, (owner, name, replacement) in phases.items():
        child = os.fork()
        if not child:
            setattr(owner, name, replacement)
            write(new, f"{folder}/{phase}.nii.gz")
            os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, phase
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    phases = ["block 0", "block 1", "block 2", "flushed", "synced", "renamed"]
    old = Volume(torch.ones(1, 4, 4, 4, dtype=torch.int16), np.eye(4))
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.mkdir()
    empty.mkdir()
    for phase in phases:
        write(old, full / f"{phase}.nii.gz")

    subprocess.run([sys.executable, "-c", KILLED, full, empty], check=True, timeout=60)

    for phase in phases[:-1]:
        assert torch.equal(read(full / f"{phase}.nii.gz").data, old.data)
        assert not (empty / f"{phase}.nii.gz").exists()
    for folder in (full, empty):
        assert read(folder / "renamed.nii.gz").data.unique().tolist() == [2]


def test_an_error_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "v.nii.gz"
    old = volume()
    write(old, path)

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medkit.data._gzip._deflate", full)
    with pytest.raises(OSError, match="No space left"):
        write(volume(1), path)

    assert list(tmp_path.iterdir()) == [path]
    assert torch.equal(read(path).data, old.data)


def test_writing_into_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(volume(), tmp_path / "nowhere" / "v.nii")


def test_a_link_is_followed(tmp_path: Path) -> None:
    target = tmp_path / "real.nii"
    write(volume(0), target)
    link = tmp_path / "link.nii"
    link.symlink_to(target)
    new = volume(1)

    write(new, link)

    assert link.is_symlink()
    np.testing.assert_allclose(read(target).affine, new.affine, atol=1e-4)


def test_the_file_has_ordinary_permissions(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    write(volume(), tmp_path / "v.nii")

    assert stat.S_IMODE((tmp_path / "v.nii").stat().st_mode) == stat.S_IMODE(
        ordinary.stat().st_mode
    )
