"""NIfTI readers beside each other: nibabel, SimpleITK, MONAI, TorchIO and medkit.

    python benchmarks/readers.py [--rounds 9]

256 x 256 x 200 voxels made of the T1 template inside nilearn: int16 with Rician noise, the same
with the background set to 0, the three tissue labels as uint8, and the noisy image uncompressed.
The .nii.gz files are one gzip member of level 6, as most programs write. All readers run in this
one process, in turn, with the file in the page cache; a row gives the shortest of the rounds and
its ratio to medkit, above 1 where medkit is faster.

medkit verifies CRC-32, length and the end of the file; no other reader here does. It is measured
with its extra ``fast`` (isal) and with the standard library. ``medkit, float32`` adds the
conversion that MONAI makes; nibabel's get_fdata converts to float64, the others keep the type.
``at least`` is what medkit sets itself for the .nii.gz of noise: to be so many times as fast.
Patches out of large volumes have a script of their own, patches.py.
"""

import argparse
import gzip
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import monai.transforms
import nibabel
import nilearn
import numpy as np
import SimpleITK
import torchio

from _record import record
from medkit.data import read

warnings.filterwarnings("ignore")
SHAPE = (200, 256, 256)
TARGETS = {"nibabel get_fdata": 2.0, "SimpleITK": 1.0, "MONAI LoadImage": 3.0}
TARGETED = "noisy int16 .nii.gz"
Reader = Callable[[str], object]


def medkit_stdlib(path: str) -> object:
    with mock.patch("medkit._core.optional.is_available", return_value=False):
        return read(path)


def nibabel_stored(path: str) -> object:
    return np.array(nibabel.load(path).dataobj)  # a copy: the mapping of a plain file reads nothing


READERS: dict[str, Reader] = {
    "medkit": read,
    "medkit, float32": lambda path: read(path).data.float(),
    "medkit, stdlib": medkit_stdlib,
    "SimpleITK": lambda path: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)),
    "nibabel get_fdata": lambda path: nibabel.load(path).get_fdata(),
    "nibabel dataobj": nibabel_stored,
    "TorchIO": lambda path: torchio.ScalarImage(path).data,
    "MONAI LoadImage": monai.transforms.LoadImage(image_only=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        for title, path in _files(Path(folder)).items():
            megabytes = Path(path).stat().st_size / 2**20
            print(f"\n{title} ({megabytes:.1f} MiB)")
            times = _race(path, rounds)
            record(f"read {title}", "time", times)
            for name, seconds in times.items():
                ratio = seconds / times["medkit"]
                target = TARGETS.get(name) if title == TARGETED else None
                goal = f"  at least {target:g} x" if target else ""
                print(f"  {name:20} {seconds * 1e3:8.1f} ms {ratio:7.2f} x{goal}")


def _race(path: str, rounds: int) -> dict[str, float]:
    """Return the shortest time of each reader, taking turns."""
    best = dict.fromkeys(READERS, float("inf"))
    for _ in range(rounds):
        for name, reader in READERS.items():
            start = time.perf_counter()
            reader(path)
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def _files(folder: Path) -> dict[str, str]:
    """Write the files and return what they are called and where they are."""
    generator = np.random.default_rng(0)
    head, tissue = _template("t1"), _template("gm")
    noise = generator.normal(0, 20, (2, *SHAPE))
    noisy = np.hypot(head * 8.0 + noise[0], noise[1]).astype(np.int16)
    stripped = np.where(head > 0, noisy, 0).astype(np.int16)
    label = np.digitize(tissue, (20, 128)).astype(np.uint8)
    arrays = {"noisy int16": noisy, "zero background int16": stripped, "labels uint8": label}
    paths: dict[str, str] = {}
    for title, array in arrays.items():
        name = title.partition(" ")[0]
        plain = folder / f"plain-{name}.nii"  # of another name: ITK prefers x.nii to x.nii.gz
        nibabel.save(nibabel.Nifti1Image(array.T, np.diag([0.9, 0.9, 0.95, 1])), plain)
        packed = folder / f"{name}.nii.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes(), 6))
        paths[f"{title} .nii.gz"] = str(packed)
    return {**paths, "noisy int16 .nii": str(folder / "plain-noisy.nii")}


def _template(name: str) -> np.ndarray:
    """Return a template of nilearn in the middle of the larger array."""
    file = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    image = nibabel.load(Path(nilearn.__file__).parent / "datasets" / "data" / file)
    small = np.asarray(image.dataobj).T
    large = np.zeros(SHAPE, small.dtype)
    inside = tuple(
        slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(SHAPE, small.shape, strict=True)
    )
    large[inside] = small
    return large


if __name__ == "__main__":
    main()
