"""TFRecordDataset: every record once, decoded by its schema, from any process."""

import os
import pickle
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medkit.data import (
    ChecksumError,
    Feature,
    FormatError,
    LimitError,
    Limits,
    PatchDataset,
    TFRecordDataset,
    UniformPatchSampler,
    build_example,
    read_tfrecord,
    write_tfrecord,
)
from medkit.data import _tfrecord_index as index_module
from medkit.testing import assert_close
from unit.data.nifti_bytes import flip_bit
from unit.data.tfrecord_bytes import SHARD, shard_arrays

SURFACE = {
    "image": Feature(
        name="image", dtype="uint8", shape="image_shape", layout="spatial", to=torch.float32
    ),
    "label": Feature(
        name="label", dtype="uint8", shape="label_shape", layout="spatial", to=torch.int64
    ),
}
NUMBER = {"number": Feature(name="number", dtype="int64", shape=())}
METHODS = ["fork", "forkserver", "spawn"] if sys.platform == "linux" else ["spawn"]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Four files of 5, 0, 1 and 7 records that are numbered throughout."""
    paths, number = [], 0
    for count in (5, 0, 1, 7):
        path = tmp_path / f"{len(paths)}.tfrecord"
        write_tfrecord((build_example({"number": number + k}) for k in range(count)), path)
        paths.append(path)
        number += count
    return paths


def _numbers(dataset) -> list[int]:
    return [int(item["number"]) for item in dataset]


def test_items_of_the_surface_pipeline() -> None:
    arrays = shard_arrays()
    dataset = TFRecordDataset([SHARD], SURFACE)

    assert len(dataset) == 3
    for number in range(3):
        item = dataset[number]
        assert type(item) is dict
        assert sorted(item) == ["id", "image", "label"]
        for name, dtype in (("image", torch.float32), ("label", torch.int64)):
            assert item[name].dtype == dtype
            assert_close(item[name], torch.as_tensor(arrays[f"{name}{number}"])[None].to(dtype))
        assert item["id"] == f"training_shard_0:{number}"


def test_records_are_numbered_through_all_files(files: list[Path]) -> None:
    dataset = TFRecordDataset(files, NUMBER)

    assert _numbers(dataset) == list(range(13))
    assert [dataset[i]["id"] for i in (0, 4, 5, 6, 12, -1)] == [
        "0:0",
        "0:4",
        "2:0",
        "3:0",
        "3:6",
        "3:6",
    ]
    for index in (13, -14):
        with pytest.raises(IndexError, match=f"below 13; got {index}"):
            dataset[index]


def test_equal_file_names_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_tfrecord([build_example({"number": 0})], tmp_path / name / "x.tfrecord")
    paths = [tmp_path / name / "x.tfrecord" for name in ("a", "b")]

    assert [item["id"] for item in TFRecordDataset(paths, NUMBER)] == [
        f"{path}:0" for path in paths
    ]


@pytest.mark.parametrize("ranks", [1, 2, 3, 13, 20])
def test_shards_hold_each_record_once(ranks: int, files: list[Path]) -> None:
    dataset = TFRecordDataset(files, NUMBER)
    shards = [_numbers(dataset.shard(rank, ranks)) for rank in range(ranks)]

    assert sorted(chain(*shards)) == list(range(13))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert _numbers(dataset) == list(range(13))
    again = [_numbers(dataset.shard(1, 2).shard(part, 2)) for part in range(2)]
    assert sorted(chain(*again)) == _numbers(dataset.shard(1, 2))


@pytest.mark.parametrize("method", METHODS)
def test_workers_give_each_record_once(method: str, files: list[Path]) -> None:
    dataset = TFRecordDataset(files, NUMBER).shard(0, 2)
    dataset[0]
    loader = DataLoader(
        dataset, batch_size=2, num_workers=2, multiprocessing_context=method, shuffle=True
    )
    numbers = torch.cat([batch["number"] for batch in loader]).tolist()

    assert sorted(numbers) == list(range(0, 13, 2))


def test_a_dataset_can_be_pickled_and_keeps_no_file_open(files: list[Path]) -> None:
    dataset = pickle.loads(pickle.dumps(TFRecordDataset(files, NUMBER)))

    assert _numbers(dataset) == list(range(13))
    if sys.platform == "linux":
        opened = {str(link.resolve()) for link in Path("/proc/self/fd").iterdir()}
        assert not opened & {str(path) for path in files}


def test_a_stored_index_is_used_and_is_small(files: list[Path], monkeypatch) -> None:
    TFRecordDataset(files, NUMBER, store_index=True)
    assert Path(f"{files[3]}.index").stat().st_size == 32 + 8 * 8 + 4
    monkeypatch.setattr(index_module, "_scan", None)

    assert _numbers(TFRecordDataset(files, NUMBER)) == list(range(13))


@pytest.mark.parametrize("where", range(0, 68, 3))
def test_a_damaged_index_is_not_believed(where: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    write_tfrecord((build_example({"number": k}) for k in range(3)), path)
    TFRecordDataset([path], NUMBER, store_index=True)
    index = Path(f"{path}.index")
    index.write_bytes(flip_bit(index.read_bytes(), where))

    assert _numbers(TFRecordDataset([path], NUMBER)) == [0, 1, 2]
    index.write_bytes(index.read_bytes()[:where])
    assert _numbers(TFRecordDataset([path], NUMBER)) == [0, 1, 2]


def test_an_index_of_another_file_is_not_believed(tmp_path: Path) -> None:
    path, other = tmp_path / "a.tfrecord", tmp_path / "b.tfrecord"
    write_tfrecord((build_example({"number": k}) for k in range(3)), path)
    write_tfrecord((build_example({"x": bytes(k)}) for k in (0, 30)), other)
    TFRecordDataset([other], NUMBER, store_index=True)
    Path(f"{other}.index").rename(f"{path}.index")

    assert _numbers(TFRecordDataset([path], NUMBER)) == [0, 1, 2]


def test_an_index_of_the_same_size_is_not_believed_after_a_rewrite(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    schema = {"text": Feature(name="text", dtype="str")}
    records = [build_example({"text": "short"}), build_example({"text": "a much longer text"})]
    write_tfrecord(records, path)
    TFRecordDataset([path], schema, store_index=True)
    write_tfrecord(reversed(records), path)
    os.utime(path, ns=(1, 1))

    texts = [item["text"] for item in TFRecordDataset([path], schema)]
    assert texts == ["a much longer text", "short"]


def test_a_forged_index_cannot_give_another_record(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    write_tfrecord((build_example({"number": k}) for k in range(4)), path)
    index = index_module.open_index(path, limits=Limits(), verify=True, store=False)
    step = int(index.offsets[1])
    forged = index_module.TFRecordIndex(
        path=index.path,
        size=index.size,
        mtime_ns=index.mtime_ns,
        offsets=np.array([0, 2 * step, 4 * step]),
    )
    index_module._store(forged)
    dataset = TFRecordDataset([path], NUMBER)

    with pytest.raises(FormatError, match="as it was when it was opened"):
        dataset[0]


def test_a_file_that_changes_later_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    write_tfrecord([build_example({"number": 1})], path)
    dataset = TFRecordDataset([path], NUMBER)
    write_tfrecord([build_example({"number": 2})], path)
    os.utime(path, ns=(1, 1))

    with pytest.raises(FormatError, match="build the dataset again"):
        dataset[0]


def test_a_folder_that_cannot_be_written_to_keeps_no_index(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.tfrecord"
    write_tfrecord([build_example({"number": 1})], path)

    def refuse(_):
        raise PermissionError

    monkeypatch.setattr(index_module, "atomic_file", refuse)

    assert _numbers(TFRecordDataset([path], NUMBER, store_index=True)) == [1]


def test_damage_names_the_record(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(flip_bit(SHARD.read_bytes(), 3000))
    dataset = TFRecordDataset([path], SURFACE)

    dataset[0]
    with pytest.raises(ChecksumError, match=r"a\.tfrecord: CRC-32C of the content of record 1"):
        dataset[1]
    assert TFRecordDataset([path], SURFACE, verify=False)[1]["image"].shape == (1, 9, 10, 12)


def test_compressed_files_are_refused_with_a_remedy(tmp_path: Path) -> None:
    path, plain = tmp_path / "a.gz", tmp_path / "a.tfrecord"
    write_tfrecord(read_tfrecord(SHARD), path, compression="gzip")
    with pytest.raises(FormatError, match=r"write_tfrecord\(read_tfrecord\(path\), new_path\)"):
        TFRecordDataset([path], SURFACE)

    write_tfrecord(read_tfrecord(path), plain)
    assert len(TFRecordDataset([plain], SURFACE)) == 3


def test_large_records_are_refused(files: list[Path]) -> None:
    with pytest.raises(LimitError, match="max_bytes"):
        TFRecordDataset(files, NUMBER, limits=Limits(max_bytes=9))


@pytest.mark.parametrize(
    ("paths", "schema", "words"),
    [
        ([], NUMBER, "paths must be a sequence of files"),
        ("a.tfrecord", NUMBER, "paths must be a sequence of files"),
        ([SHARD], {}, "schema must be a mapping with at least one Feature"),
    ],
)
def test_bad_arguments_are_refused(paths, schema, words: str, unhooked) -> None:
    with pytest.raises(ValueError, match=words):
        TFRecordDataset(paths, schema)


@pytest.mark.parametrize(("rank", "ranks"), [(2, 2), (-1, 2), (0, 0)])
def test_impossible_ranks_are_refused(rank: int, ranks: int) -> None:
    with pytest.raises(ValueError, match="rank"):
        TFRecordDataset([SHARD], SURFACE).shard(rank, ranks)


def test_raw_features_are_shown() -> None:
    example = TFRecordDataset([SHARD], SURFACE).example(1)

    assert example["image_shape"].tolist() == [9, 10, 12]
    assert sorted(example) == ["image", "image_shape", "label", "label_shape"]


def test_an_id_of_the_schema_names_the_item(tmp_path: Path) -> None:
    write_tfrecord([build_example({"case": "s07", "number": 1})], tmp_path / "a.tfrecord")
    schema = {**NUMBER, "id": Feature(name="case", dtype="str")}

    assert TFRecordDataset([tmp_path / "a.tfrecord"], schema)[0]["id"] == "s07"


def test_patches_are_cut_from_records() -> None:
    dataset = TFRecordDataset([SHARD], SURFACE)
    patches = PatchDataset(dataset, patch_size=8, sampler=UniformPatchSampler(), patches_per_case=2)
    item = patches[3]

    assert len(patches) == 6
    assert item["image"].shape == (1, 8, 8, 8)
    assert (item["image"].dtype, item["label"].dtype) == (torch.float32, torch.int64)
    w, h, d = item["affine"][:3, 3].int().tolist()
    whole = dataset[1]
    for name in ("image", "label"):
        assert torch.equal(item[name], whole[name][:, d : d + 8, h : h + 8, w : w + 8])
    case = dataset.case(0)
    assert case.image.data.dtype == torch.uint8
    assert [notice.code for notice in case.image.warnings] == ["no_orientation"]
    assert case.id == "training_shard_0:0"


def test_cases_need_an_image_of_four_axes(files: list[Path]) -> None:
    with pytest.raises(ValueError, match="one with 'image' for cases"):
        TFRecordDataset(files, NUMBER).case(0)
    with pytest.raises(FormatError, match=r"0:3: image must be \(C, D, H, W\)"):
        TFRecordDataset(files, {"image": NUMBER["number"]}).case(3)


PEER = """
import sys
from tfrecord.reader import tfrecord_loader
for path, compression in zip(sys.argv[1:], (None, "gzip")):
    for example in tfrecord_loader(path, None, compression_type=compression):
        print(bytes(example["image"]).hex(), example["size"].tolist(), example["x"].tolist())
"""


def test_the_tfrecord_package_reads_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("tfrecord")
    record = build_example({"image": bytes(range(99)), "size": [9, -11], "x": [0.5, 0.25]})
    write_tfrecord([record], tmp_path / "plain")
    write_tfrecord([record], tmp_path / "packed", compression="gzip")
    command = [sys.executable, "-W", "ignore", "-c", PEER, tmp_path / "plain", tmp_path / "packed"]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)

    assert result.stdout == f"{bytes(range(99)).hex()} [9, -11] [0.5, 0.25]\n" * 2
