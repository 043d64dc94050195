"""Damaged DICOM files for a process with limited memory; run as a script, the soak test.

python tests/unit/data/dicom_damage.py [--count 10000] [--seed 0]
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

LIMITED = """
import pathlib, resource, sys, time, warnings
from medkit.data import DataError, read_dicom
import numpy, torch, pydicom.pixels
torch.zeros(9).sum()
warnings.simplefilter("error")
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    start = time.perf_counter()
    try:
        read_dicom(path)
    except DataError:
        pass
    except BaseException as error:
        raise AssertionError(path) from error
    assert time.perf_counter() - start < 2, path
print("survived")
"""


def damaged_files(whole: Mapping[str, bytes], count: int, *, seed: int) -> Iterator[bytes]:
    """Yield files with bytes changed, dropped, doubled or inserted, or cut short."""
    generator = np.random.default_rng(seed)
    names = sorted(whole)
    for _ in range(count):
        content = bytearray(whole[names[generator.integers(len(names))]])
        for _ in range(generator.integers(1, 5)):
            at = int(generator.integers(max(1, len(content))))
            size = int(generator.integers(1, 9))
            new = generator.integers(0, 256, size).astype("u1").tobytes()
            how = generator.choice(["change", "change", "change", "drop", "double", "insert"])
            piece = bytes(content[at : at + size])
            content[at : at + size] = {
                "change": new[: len(piece)],
                "drop": b"",
                "double": piece + piece,
                "insert": new + piece,
            }[str(how)]
        yield bytes(
            content[: generator.integers(1 + len(content))] if generator.random() < 0.1 else content
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from property.test_dicom import UNCHANGED
    from unit.data.dicom_files import J2K, JPEG_LS, compressed, image, pixels, save

    whole = dict(UNCHANGED)
    with TemporaryDirectory() as name:
        folder = Path(name)
        for syntax in (J2K, JPEG_LS):
            ds = compressed(image(1, pixels(1, (40, 50))), syntax)
            whole[syntax] = save(ds, folder / "whole").read_bytes()
        (folder / "whole").unlink()
        for number, content in enumerate(damaged_files(whole, options.count, seed=options.seed)):
            (folder / f"{number:06}.dcm").write_bytes(content)
        subprocess.run([sys.executable, "-c", LIMITED, name], check=True)


if __name__ == "__main__":
    main()
