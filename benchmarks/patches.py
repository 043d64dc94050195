"""96^3 patches out of a volume of 512^3: NumPy's memory map, h5py and medkit beside each other.

    python benchmarks/patches.py [--rounds 200] [--cold 20] [--side 512]

The volume is int16, stored as .npy and as caches of ``medkit.data.cache``: a.h5 with the default
chunks, cubes.h5 with cubes of 64 voxels, checked.h5 with a checksum of each. Patches lie at
random; all readers run in one process, in turn and ten patches at a time, each at places of its
own, so that none finds what another has left in the processor's cache. The upper rows give int16,
the lower ones what an item of a dataset holds, a float32 tensor.

Warm, the volume is in the page cache and a row gives the time of the processor, which other
programs disturb least: the fastest, the lower quartile and the median, each with its ratio to the
memory map of the same kind. The cache is to need at most 1.5 times as long. Cold, the files
are dropped from the page cache before each patch, and a row gives the median time of the clock.
"""

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

import medkit.data
from _record import record
from medkit.data import CachedDataset, PatchDataset, Volume, VolumeDataset, cache

PATCH = 96
TARGET = 1.5
_BLOCK = 10  # patches of one reader before the next one's turn
Reader = Callable[[Sequence[int]], object]


class At:
    """A sampler whose patches are where it is told."""

    def __init__(self) -> None:
        self.place: Sequence[int] = (0, 0, 0)

    def prepare(self, cases: Iterable[object]) -> list["At"]:
        """Return itself for every case."""
        return [self for _ in cases]

    def start(self, *_: object) -> Sequence[int]:
        """Return the first voxel of the patch."""
        return self.place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--cold", type=int, default=20)
    parser.add_argument("--side", type=int, default=512)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = _write(Path(folder), arguments.side)
        places = np.random.default_rng(0)

        def place() -> list[int]:
            return places.integers(0, arguments.side - PATCH + 1, 3).tolist()

        makers = {"int16": _int16, "item": _items}
        for title, make in makers.items():
            print(f"\n{title}, in memory: fastest, quartile, median")
            _warm(title, make(files), place, arguments.rounds)
        for title, make in makers.items():
            if arguments.cold and hasattr(os, "posix_fadvise"):
                print(f"\n{title}, on the disk: median")
                _cold(make, files, place, arguments.cold)


def _write(folder: Path, side: int) -> dict[str, str]:
    generator = np.random.default_rng(0)
    voxels = generator.integers(-1000, 3000, (side,) * 3, np.int16)
    np.save(folder / "a.npy", voxels)
    dataset = VolumeDataset([{"image": Volume(torch.from_numpy(voxels)[None], np.eye(4))}])
    cache(dataset, folder / "a.h5")
    cache(dataset, folder / "cubes.h5", chunk=64)
    cache(dataset, folder / "checked.h5", chunk=64, checksum=True)
    return {name: str(folder / name) for name in ("a.npy", "a.h5", "cubes.h5", "checked.h5")}


def _int16(files: dict[str, str]) -> dict[str, Reader]:
    mapped = np.load(files["a.npy"], mmap_mode="r")
    plain = h5py.File(files["cubes.h5"], "r", locking=False)["items/000000/image"]
    npy = medkit.data.open(files["a.npy"])
    size = (PATCH,) * 3
    readers: dict[str, Reader] = {
        "NumPy memory map": lambda place: np.array(mapped[_box(place)]),
        "h5py, cubes of 64": lambda place: plain[(0, *_box(place))],
        "medkit open(.npy)": lambda place: npy.read(place, size).data,
    }
    for name in ("a.h5", "cubes.h5", "checked.h5"):
        image = CachedDataset(files[name]).lazy_case(0).image
        readers[f"medkit {name}"] = lambda place, image=image: image.read(place, size).data
    return readers


def _items(files: dict[str, str]) -> dict[str, Reader]:
    mapped = np.load(files["a.npy"], mmap_mode="r")

    def memory_map(place: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(mapped[_box(place)].astype(np.float32))

    readers: dict[str, Reader] = {"NumPy memory map": memory_map}
    for name in ("a.h5", "cubes.h5"):
        at = At()
        patches = PatchDataset(CachedDataset(files[name]), patch_size=PATCH, sampler=at)

        def item(place: Sequence[int], at: At = at, patches: PatchDataset = patches) -> object:
            at.place = place
            return patches[0]["image"]

        readers[f"medkit {name}"] = item
    return readers


def _box(place: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(a, a + PATCH) for a in place)


def _check(readers: dict[str, Reader], place: Sequence[int]) -> None:
    results = [np.asarray(reader(place)).reshape((PATCH,) * 3) for reader in readers.values()]
    if not all(np.array_equal(results[0], other) for other in results):
        raise SystemExit("the readers disagree")


def _warm(
    title: str, readers: dict[str, Reader], place: Callable[[], list[int]], rounds: int
) -> None:
    _check(readers, place())
    times: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(rounds // _BLOCK + 1):
        for name, reader in readers.items():
            for _ in range(_BLOCK):
                at = place()
                start = time.process_time()
                reader(at)
                if number:
                    times[name].append(time.process_time() - start)
    points = (0, 0.25, 0.5)
    base = np.quantile(times["NumPy memory map"], points)
    medians = {name: float(np.median(seconds)) for name, seconds in times.items()}
    record(f"96^3 patch of 512^3, {title}", "time", medians, ours="medkit a.h5")
    for name, seconds in times.items():
        found = np.quantile(seconds, points)
        columns = [f"{t * 1e3:7.2f} ms {t / b:5.2f} x" for t, b in zip(found, base, strict=True)]
        target = f"   target {TARGET} x" if name == "medkit a.h5" else ""
        print(f"  {name:20}{'  '.join(columns)}{target}")


def _cold(
    make: Callable[[dict[str, str]], dict[str, Reader]],
    files: dict[str, str],
    place: Callable[[], list[int]],
    rounds: int,
) -> None:
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in list(make(files)):
            gc.collect()  # pages that are mapped anywhere stay
            for path in files.values():
                _drop(path)
            reader, at = make(files)[name], place()
            start = time.perf_counter()
            reader(at)
            times.setdefault(name, []).append(time.perf_counter() - start)
            del reader
    base = float(np.median(times["NumPy memory map"]))
    for name, seconds in times.items():
        median = float(np.median(seconds))
        print(f"  {name:20}{median * 1e3:7.2f} ms {median / base:5.2f} x")


def _drop(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


if __name__ == "__main__":
    main()
