"""Ten thousand damaged files of a format, read in a process with limited memory and time.

python tests/unit/data/soak.py FORMAT [--count 10000] [--seed 0], or "all" for every format in turn.

Each file has bytes changed, dropped, doubled or inserted in one to four places, and one in ten is
cut. A reader may return a volume or raise a DataError, or FileNotFoundError where a header names
another file; anything else, more than a gibibyte, or more than two seconds is a failure.
"""

import argparse
import gzip
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

LIMITED = """
import collections, json, pathlib, resource, sys, time, warnings
from medkit.data import DataError, read
import numpy, torch
torch.zeros(9).sum()
try:
    import PIL.PngImagePlugin, PIL.JpegImagePlugin, PIL.TiffImagePlugin, pydicom.pixels, numcodecs
except ImportError:
    pass
warnings.simplefilter("error")
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
counts, slowest = collections.Counter(), 0.0
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    start = time.perf_counter()
    try:
        read(path)
        counts["read"] += 1
    except (DataError, FileNotFoundError) as error:
        counts[type(error).__name__] += 1
    except BaseException as error:
        raise AssertionError(path) from error
    took = time.perf_counter() - start
    assert took < 2, (path, took)
    slowest = max(slowest, took)
print(json.dumps({**counts, "slowest_ms": round(1000 * slowest)}))
"""
_BATCH = 1000
_SECONDS = 600

Store = dict[str, bytes]
"""The files of one image by their names; most formats have a single one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=[*FORMATS, "all"])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in FORMATS if options.format == "all" else [options.format]:
        print(name, json.dumps(soak(name, options.count, options.seed)), flush=True)


def soak(name: str, count: int, seed: int) -> dict[str, int]:
    """Return what became of ``count`` damaged files of a format."""
    total: dict[str, int] = {}
    whole = FORMATS[name]()
    for start in range(0, count, _BATCH):
        with TemporaryDirectory() as folder:
            size = min(_BATCH, count - start)
            for number, store in enumerate(_damaged(whole, size, seed + start)):
                _save(store, Path(folder) / f"{start + number:06}")
            command = [sys.executable, "-c", LIMITED, folder]
            result = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=_SECONDS
            )
            if result.returncode:
                kept = Path(f"{name}.damaged")
                shutil.copytree(folder, kept, dirs_exist_ok=True)
                raise SystemExit(f"{result.stderr}\nthe files are kept in {kept}")
        for key, value in json.loads(result.stdout).items():
            most = key == "slowest_ms"
            total[key] = max(total.get(key, 0), value) if most else total.get(key, 0) + value
    return total


def _damaged(whole: list[Store], count: int, seed: int) -> Iterator[Store]:
    """Yield images in which one file is damaged."""
    from unit.data.dicom_damage import damaged_files

    generator = np.random.default_rng(seed)
    for number in range(count):
        store = dict(whole[int(generator.integers(len(whole)))])
        sizes = np.sqrt([len(content) for content in store.values()])
        name = str(generator.choice(list(store), p=sizes / sizes.sum()))
        (store[name],) = damaged_files({"": store[name]}, 1, seed=seed + number)
        yield store


def _save(store: Store, path: Path) -> None:
    if list(store) == [""]:
        path.write_bytes(store[""])
        return
    for name, content in store.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def _single(*contents: bytes) -> list[Store]:
    return [{"": content} for content in contents]


def _written(suffix: str, *options: dict[str, object]) -> list[bytes]:
    import medkit.data
    from unit.data.volumes import volume

    kind = {".nii": "nifti", ".nii.gz": "nifti", ".h5": "hdf5", ".tif": "tiff"}
    writer = getattr(medkit.data, f"write_{kind.get(suffix, suffix[1:])}")
    contents: list[bytes] = []
    with TemporaryDirectory() as folder:
        for each in options or ({},):
            path = Path(folder) / f"a{suffix}"
            writer(volume(2, channels=2), path, **each)
            contents.append(path.read_bytes())
    return contents


def _nifti() -> list[Store]:
    from property.test_data import FILES

    return _single(*FILES.values(), gzip.compress(FILES["nifti-1"]))


def _hdf5() -> list[Store]:
    return _single(*_written(".h5", {}, {"checksum": False}, {"chunk": None}))


def _npy() -> list[Store]:
    file = io.BytesIO()
    np.save(file, np.arange(60, dtype="i2").reshape(3, 4, 5))
    return _single(file.getvalue())


def _npz() -> list[Store]:
    return _single(*_written(".npz", {}, {"compress": True}))


def _nrrd() -> list[Store]:
    return _single(*_written(".nrrd", {}, {"compress": False}))


def _mha() -> list[Store]:
    return _single(*_written(".mha", {}, {"compress": False}))


def _dicom() -> list[Store]:
    from property.test_dicom import UNCHANGED
    from unit.data.dicom_files import J2K, JPEG_LS, compressed, image, pixels, save

    contents = list(UNCHANGED.values())
    with TemporaryDirectory() as folder:
        for syntax in (J2K, JPEG_LS):
            ds = compressed(image(1, pixels(1, (40, 50))), syntax)
            contents.append(save(ds, Path(folder) / "a").read_bytes())
    return _single(*contents)


def _tiff() -> list[Store]:
    from unit.data.picture_files import TIFFS

    return _single(*(make() for make in TIFFS.values()))


def _png() -> list[Store]:
    from unit.data.picture_files import PNGS

    return _single(*(make() for make in PNGS.values()))


def _jpeg() -> list[Store]:
    from unit.data.picture_files import JPEGS

    return _single(*(make() for make in JPEGS.values()))


def _zarr() -> list[Store]:
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

    array = np.arange(240, dtype="u2").reshape(2, 4, 5, 6)
    options: list[dict[str, object]] = [
        {"zarr_format": 2},
        {"compressors": BloscCodec()},
        {"compressors": [GzipCodec(), Crc32cCodec()]},
        {"compressors": ZstdCodec(), "shards": (2, 4, 6, 6)},
    ]
    stores: list[Store] = []
    with TemporaryDirectory() as folder:
        for number, each in enumerate(options):
            path = Path(folder) / str(number)
            stored = zarr.create_array(
                path, shape=array.shape, dtype="u2", chunks=(1, 4, 3, 6), **each
            )
            stored[...] = array
            files = (file for file in path.rglob("*") if file.is_file())
            stores.append({str(file.relative_to(path)): file.read_bytes() for file in files})
    return stores


FORMATS: dict[str, Callable[[], list[Store]]] = {
    "nifti": _nifti,
    "hdf5": _hdf5,
    "npy": _npy,
    "npz": _npz,
    "nrrd": _nrrd,
    "mha": _mha,
    "tiff": _tiff,
    "png": _png,
    "jpeg": _jpeg,
    "dicom": _dicom,
    "zarr": _zarr,
}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
