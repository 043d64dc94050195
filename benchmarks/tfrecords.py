"""TFRecord readers beside each other: the tfrecord package and medkit, TensorFlow if it is there.

    pip install tfrecord
    python benchmarks/tfrecords.py [--rounds 9] [--records 60]

Records of a 128^3 uint8 image and label, with their shapes, in one file of 252 MB in the page
cache; each reader gives both arrays in shape, in its own fastest way, and sums one voxel of each.
All run in this one process, in turn; a row gives the shortest and the median of the rounds and the
ratio of the shortest to medkit's, above 1 where medkit is faster.

medkit verifies both checksums of each record, the tfrecord package none. ``numpy CRC`` is medkit
without google-crc32c. The index rows are the time from a file name to a dataset that knows where
each record is, by the index stored beside the file and by a scan, and what ``tfrecord2idx`` takes.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from tfrecord.reader import tfrecord_loader
from tfrecord.tools.tfrecord2idx import create_index

from _record import record
from medkit.data import (
    Feature,
    TFRecordDataset,
    build_example,
    parse_example,
    read_tfrecord,
    write_tfrecord,
)

SIDE = 128
SCHEMA = {
    "image": Feature(name="image", dtype="uint8", shape="image_shape", layout="spatial"),
    "label": Feature(name="label", dtype="uint8", shape="label_shape", layout="spatial"),
}
KINDS = {"image": "byte", "label": "byte", "image_shape": "int", "label_shape": "int"}


def medkit_dataset(path: str) -> int:
    dataset = TFRecordDataset([path], SCHEMA)
    return sum(int(item["image"][0, 1, 2, 3] + item["label"][0, 1, 2, 3]) for item in dataset)


def medkit_numpy_crc(path: str) -> int:
    with mock.patch("medkit.data._crc32c._engine", return_value=None):
        return medkit_dataset(path)


def medkit_stream(path: str) -> int:
    total = 0
    for data in read_tfrecord(path):
        example = parse_example(data)
        for name in SCHEMA:
            shape = example[f"{name}_shape"]
            total += int(np.frombuffer(example[name][0], np.uint8).reshape(shape)[1, 2, 3])
    return total


def tfrecord_package(path: str) -> int:
    total = 0
    for example in tfrecord_loader(path, None, KINDS):
        for name in SCHEMA:
            array = np.frombuffer(example[name], np.uint8)
            total += int(array.reshape(example[f"{name}_shape"])[1, 2, 3])
    return total


def tensorflow_reader() -> Callable[[str], int]:
    import tensorflow as tf

    features = {name: tf.io.FixedLenFeature([], tf.string) for name in SCHEMA}
    features |= {f"{name}_shape": tf.io.FixedLenFeature([3], tf.int64) for name in SCHEMA}

    def decode(record: tf.Tensor) -> list[tf.Tensor]:
        example = tf.io.parse_single_example(record, features)
        return [
            tf.reshape(tf.io.decode_raw(example[name], tf.uint8), example[f"{name}_shape"])
            for name in SCHEMA
        ]

    def read(path: str) -> int:
        arrays = tf.data.TFRecordDataset(path).map(decode).as_numpy_iterator()
        return sum(int(array[1, 2, 3]) for pair in arrays for array in pair)

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--records", type=int, default=60)
    arguments = parser.parse_args()
    readers: dict[str, Callable[[str], int]] = {
        "medkit": medkit_dataset,
        "medkit, numpy CRC": medkit_numpy_crc,
        "medkit, read_tfrecord": medkit_stream,
        "tfrecord package": tfrecord_package,
    }
    try:
        readers["TensorFlow"] = tensorflow_reader()
    except ImportError:
        print("TensorFlow is not installed and left out")
    with tempfile.TemporaryDirectory() as folder:
        path = _write(Path(folder) / "a.tfrecord", arguments.records)
        size = Path(path).stat().st_size / 1e6
        print(f"\nread {size:.0f} MB, {arguments.records} records")
        _report(readers, path, arguments.rounds, size)
        print("\nindex of the same file")
        TFRecordDataset([path], SCHEMA, store_index=True)
        indexers = {
            "medkit": lambda path: len(TFRecordDataset([path], SCHEMA)),
            "medkit, scanning": _scan,
            "tfrecord2idx": lambda path: create_index(path, path + ".idx"),
        }
        _report(indexers, path, arguments.rounds, None)


def _scan(path: str) -> int:
    with mock.patch("medkit.data._tfrecord_index._load", return_value=None):
        return len(TFRecordDataset([path], SCHEMA))


def _write(path: Path, records: int) -> str:
    generator = np.random.default_rng(0)

    def example() -> bytes:
        image = generator.integers(0, 256, (SIDE,) * 3, np.uint8)
        label = generator.integers(0, 3, (SIDE,) * 3, np.uint8)
        shape = [SIDE] * 3
        arrays = {"image": image.tobytes(), "label": label.tobytes()}
        return build_example({**arrays, "image_shape": shape, "label_shape": shape})

    write_tfrecord((example() for _ in range(records)), path)
    return str(path)


def _report(
    readers: dict[str, Callable[[str], object]], path: str, rounds: int, size: float | None
) -> None:
    """Race the readers, taking turns, and print what each took."""
    times: dict[str, list[float]] = {name: [] for name in readers}
    results = {name: reader(path) for name, reader in readers.items()}  # a warm-up, and a check
    if size is not None and len(set(results.values())) > 1:
        raise SystemExit(f"the readers disagree: {results}")
    for _ in range(rounds):
        for name, reader in readers.items():
            start = time.perf_counter()
            reader(path)
            times[name].append(time.perf_counter() - start)
    what = "index of a TFRecord file" if size is None else "TFRecords of 128^3, checked by us alone"
    record(what, "time", {name: min(seconds) for name, seconds in times.items()})
    for name, seconds in times.items():
        best, median = min(seconds), statistics.median(seconds)
        rate = "" if size is None else f"{size / best:8.0f} MB/s"
        ratio = best / min(times["medkit"])
        print(f"  {name:22} {best * 1e3:9.2f} ms (median {median * 1e3:9.2f}){rate} {ratio:7.2f} x")


if __name__ == "__main__":
    main()
