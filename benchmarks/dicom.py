"""DICOM series readers beside each other: pydicom slice by slice, SimpleITK, MONAI and medkit.

    python benchmarks/dicom.py [--rounds 7] [--slices 200] [--size 512]

A CT series, uncompressed, with the headers of pydicom's CT_small.dcm (about 200 elements, private
ones too), rows and columns of ``--size``, in files whose names are not in the order of the slices.
All readers run in this one process, in turn, with the files in the page cache; a row gives the
shortest of the rounds and its ratio to medkit, above 1 where medkit is faster.

pydicom, slice by slice, is what scripts do: ``dcmread`` and ``pixel_array`` of each file, sorted by
position, scaled, stacked. It checks nothing about the positions. medkit sorts by position, checks
that the planes lie on one even grid and that every file is complete, and returns integers where
slope and intercept are whole. ``stored 12 bits`` gives int16; ``stored 16 bits`` needs int32.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import monai.data
import monai.transforms
import numpy as np
import pydicom
import pydicom.data
import SimpleITK

from _record import record
from medkit.data import read_dicom

warnings.filterwarnings("ignore")
Reader = Callable[[str], object]


def pydicom_slices(folder: str) -> np.ndarray:
    slices = [pydicom.dcmread(path) for path in Path(folder).iterdir()]
    slices.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    return np.stack(
        [
            ds.pixel_array * np.float32(ds.RescaleSlope) + np.float32(ds.RescaleIntercept)
            for ds in slices
        ]
    )


def simpleitk(folder: str) -> np.ndarray:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
    return SimpleITK.GetArrayFromImage(reader.Execute())


READERS: dict[str, Reader] = {
    "medkit": read_dicom,
    "medkit, float32": lambda folder: read_dicom(folder).data.float(),
    "pydicom, slices": pydicom_slices,
    "SimpleITK": simpleitk,
    "MONAI PydicomReader": monai.transforms.LoadImage(monai.data.PydicomReader(), image_only=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    for bits in (12, 16):
        with tempfile.TemporaryDirectory() as folder:
            _write_series(Path(folder), options.slices, options.size, bits)
            print(f"\n{options.slices} slices of {options.size}^2, stored {bits} bits")
            times = _race(folder, options.rounds)
            record(f"CT series, {options.slices} x {options.size}^2, {bits} bits", "time", times)
            for name, seconds in times.items():
                ratio = seconds / times["medkit"]
                print(f"  {name:20} {seconds * 1e3:8.1f} ms {ratio:7.2f} x")


def _race(folder: str, rounds: int) -> dict[str, float]:
    """Return the shortest time of each reader, taking turns."""
    best = dict.fromkeys(READERS, float("inf"))
    for _ in range(rounds):
        for name, reader in READERS.items():
            start = time.perf_counter()
            reader(folder)
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def _write_series(folder: Path, slices: int, size: int, bits: int) -> None:
    generator = np.random.default_rng(0)
    ds = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    del ds[0xFFFCFFFC]
    ds.Rows = ds.Columns = size
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, 0
    ds["PixelPaddingValue"].VR = "US"
    ds.PixelPaddingValue = 0
    for index, name in enumerate(generator.permutation(slices).tolist()):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index}"
        ds.ImagePositionPatient = [-150, -150, 1.25 * index]
        ds.InstanceNumber = index
        ds.PixelData = generator.integers(0, 4096, (size, size)).astype("u2").tobytes()
        ds.save_as(folder / f"{name:04}.dcm")


if __name__ == "__main__":
    main()
