"""Header parsers fed by atheris, which looks for inputs that reach new code.

python tests/unit/data/fuzz.py PARSER [--seconds 20]; needs ``pip install atheris``.

A parser may return or raise a DataError; anything else stops the run and is printed.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))

try:
    import atheris
except ImportError:
    raise SystemExit("atheris is not installed, so there is nothing to run") from None

with atheris.instrument_imports(include=["medkit.data", "medkit._core.file_errors"]):
    import medkit.data as mdata
    from medkit.data import DataError, parse_example
    from medkit.data._nifti_header import parse_header
    from medkit.data._npy_header import npy_header_length, parse_npy_header

from unit.data.soak import FORMATS


def _nifti(content: bytes) -> None:
    parse_header(content[:544], "a.nii")


def _npy(content: bytes) -> None:
    start, stop = npy_header_length(content[:12], "a.npy")
    parse_npy_header(content[start:stop], "a.npy")


def _example(content: bytes) -> None:
    parse_example(content)


def _file(reader: Callable[..., object]) -> Callable[[bytes], None]:
    path = Path(FOLDER.name) / "a"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        with suppress(FileNotFoundError):  # data beside the header
            reader(path, limits=mdata.Limits(max_bytes=2**20, max_header_bytes=2**16))

    return read


FOLDER = TemporaryDirectory()
PARSERS: dict[str, Callable[[bytes], None]] = {
    "example": _example,
    "nifti": _nifti,
    "npy": _npy,
    "nrrd": _file(mdata.read_nrrd),
    "mha": _file(mdata.read_mha),
    "tiff": _file(mdata.read_tiff),
    "png": _file(mdata.read_png),
    "dicom": _file(mdata.read_dicom),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parser", choices=PARSERS)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    parse = PARSERS[options.parser]

    def try_one(content: bytes) -> None:
        with suppress(DataError):
            parse(content)

    seeds = Path(FOLDER.name) / "seeds"
    seeds.mkdir()
    for number, store in enumerate(FORMATS.get(options.parser, list)()):
        (seeds / str(number)).write_bytes(store[""])
    arguments = [
        sys.argv[0],
        str(seeds),
        f"-max_total_time={options.seconds}",
        "-rss_limit_mb=4096",
    ]
    atheris.Setup(arguments, try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
