"""The surface example runs, alone and in two processes, and does what the published one does."""

import csv
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from examples.surface_in_processes import checksum, load_example
from medkit.data import read_nifti
from medkit.nn import SegFormer3D
from medkit.train import SampleIndex, load_weights, sample_rng

pytest.importorskip("matplotlib")
tifffile = pytest.importorskip("tifffile")

BY_TENSORFLOW = Path(__file__).parents[1] / "golden" / "tfrecord" / "training_shard_0.tfrec"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_example()


def run(example: ModuleType, folder: Path, *options: str) -> None:
    example.main(["--preset", "tiny", "--device", "cpu", "--out", str(folder), *options])


@pytest.fixture(scope="module")
def out(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("surface")
    run(example, folder)
    return folder


def steps(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["loss"]]


def test_records_are_those_that_tensorflow_wrote(example: ModuleType, out: Path) -> None:
    theirs = example.TFRecordDataset([BY_TENSORFLOW], example.SCHEMA)
    ours, _, _ = example.open_shards(out / "shards")

    for stored in (theirs.example(0), ours.example(0)):
        assert sorted(stored) == ["image", "image_shape", "label", "label_shape"]
        for name in ("image", "label"):
            assert stored[f"{name}_shape"].dtype == np.int64
            assert len(stored[name][0]) == stored[f"{name}_shape"].prod()
    image, label = example.papyrus(0, 48)
    assert torch.equal(ours[0]["image"][0], torch.from_numpy(image))
    assert torch.equal(ours[0]["label"][0], torch.from_numpy(label))


def test_last_shard_by_number_is_held_out(example: ModuleType, tmp_path: Path) -> None:
    for number in (0, 2, 9, 10):
        array = np.full((2, 2, 2), number, np.uint8)
        record = example.record(lambda array=array: (array, array))
        example.write_tfrecord([record] * 3, tmp_path / f"training_shard_{number}.tfrec")

    training, chosen_by, judged_by = example.open_shards(tmp_path)

    assert [int(item["image"].max()) for item in training] == [0] * 3 + [2] * 3 + [9] * 3
    assert [item["id"] for item in chosen_by] == ["training_shard_10:0", "training_shard_10:2"]
    assert [item["id"] for item in judged_by] == ["training_shard_10:1"]


def test_volumes_of_a_folder_become_shards(example: ModuleType, tmp_path: Path) -> None:
    images = torch.randint(0, 256, (7, 3, 4, 5), dtype=torch.uint8)
    for kind, arrays in (("images", images), ("labels", images % 3)):
        (tmp_path / f"train_{kind}").mkdir()
        for number, array in enumerate(arrays):
            tifffile.imwrite(
                tmp_path / f"train_{kind}" / f"{number}.tif",
                array.numpy(),
                photometric="minisblack",
            )

    example.write_shards(tmp_path, example.PRESETS["tiny"], tmp_path / "shards")
    training, chosen_by, judged_by = example.open_shards(tmp_path / "shards")

    assert [len(training), len(chosen_by), len(judged_by)] == [3, 2, 2]
    assert torch.equal(judged_by[1]["image"][0], images[6])
    assert torch.equal(training[2]["label"][0], images[2] % 3)


def test_volumes_that_bytes_would_wrap_are_refused(example: ModuleType) -> None:
    wide = np.full((2, 2, 2), 300, np.uint16)

    with pytest.raises(SystemExit, match="image must be uint8; got uint16"):
        example.record(lambda: (wide, wide))


def test_augmentation_is_a_function_of_seed_epoch_and_sample(example: ModuleType) -> None:
    image, label = map(torch.from_numpy, example.papyrus(3, 48))
    sample = {"image": image[None], "label": label[None]}
    transform = example.augmentation(40)
    names = [type(each).__name__ for each in transform.transforms]

    def crop(epoch: int) -> dict[str, torch.Tensor]:
        return transform(sample, generator=sample_rng(101, epoch, 5))

    first, again, other = crop(0), crop(0), crop(1)

    assert names == [
        "NormalizeIntensity",
        "RandomSpatialCrop",
        "RandomFlip",
        "RandomRotate90",
        "RandomRotate",
        "RandomShiftIntensity",
        "RandomCutOut",
    ]
    assert first["image"].shape == first["label"].shape == (1, 40, 40, 40)
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other["image"])
    assert first["label"].dtype == torch.uint8


def test_unlabelled_voxels_are_never_cut_out(example: ModuleType) -> None:
    image, label = map(torch.from_numpy, example.papyrus(3, 48))
    transform = example.augmentation(40)
    crops = [
        transform({"image": image[None], "label": label[None]}, generator=sample_rng(101, 0, seed))
        for seed in range(8)
    ]
    cut = torch.cat([crop["image"] == 0 for crop in crops])
    unlabelled = torch.cat([crop["label"] == 2 for crop in crops])

    assert cut.any()
    assert unlabelled.any()
    assert not (cut & unlabelled).any()


def test_unlabelled_voxels_and_the_third_class_cost_nothing(example: ModuleType) -> None:
    label = torch.from_numpy(example.papyrus(1, 40)[1])[None, None]
    assert {0, 1, 2} == set(label.unique().tolist())
    perfect = 10 * torch.stack([label[:, 0] == 0, label[:, 0] == 1, label[:, 0] == 5], 1).float()
    loss = example.make_loss(iterations=2)

    terms = loss.terms(perfect, label)
    noise = torch.randn(perfect.shape, requires_grad=True)
    loss(noise, label).backward()

    assert all(float(term) < 1e-3 for term in terms.values())
    unknown = (label == 2).expand_as(noise)
    assert (noise.grad[unknown] == 0).all()
    assert (noise.grad[~unknown] != 0).any()


@pytest.mark.parametrize(("batch", "peak"), [(1, 5e-5), (2, 1e-4), (8, 3e-4)])
def test_published_preset_has_the_published_numbers(
    example: ModuleType, batch: int, peak: float
) -> None:
    preset = example.PRESETS["published"]
    net = SegFormer3D(1, 3, profile="medicai", **preset.network)
    statistics = [b for name, b in net.named_buffers() if "running" in name]

    assert sum(x.numel() for x in [*net.parameters(), *statistics]) == 4_501_027
    assert (preset.crop, preset.epochs, preset.validate_every) == (128, 200, 5)
    assert (preset.iterations, preset.batch) == (50, 1)
    assert example.scaled_lr(batch, base=preset.base_lr, cap=preset.highest_lr) == pytest.approx(
        peak
    )


def test_learning_rate_is_keras_cosine(out: Path) -> None:
    rates = [float(row["lr"]) for row in steps(out)]
    total = len(rates)
    warmup = int(0.05 * total)

    expected = [
        4e-3 * (0.9 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) + 0.1)
        for step in range(total)
    ]
    assert total == 2 * (4 // 2)
    assert rates == pytest.approx(expected, rel=1e-6)


def test_masks_picture_and_scores_are_written(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())

    assert [path.name for path in sorted(out.glob("*.tif"))] == [
        "training_shard_1_1.tif",
        "training_shard_1_3.tif",
    ]
    mask = tifffile.imread(out / "training_shard_1_1.tif")
    assert mask.dtype == np.uint8
    assert mask.shape == (48, 48, 48)
    assert set(np.unique(mask)) <= {0, 1}
    volume = read_nifti(out / "training_shard_1_1.nii.gz").data[0].numpy()
    assert np.array_equal(mask, volume)
    assert (out / "surfaces.png").read_bytes().startswith(b"\x89PNG")
    assert report["policy"].startswith("topology is absent")
    ways = ["threshold", "network", "hysteresis", "closing", "cleaning", "as published"]
    assert list(report["unseen volumes"]) == ways
    for numbers in report["unseen volumes"].values():
        assert list(numbers) == ["dice", "score", "surface_dice", "variation"]
        assert all(0 <= number <= 1 for number in numbers.values())


def test_a_run_shorter_than_its_first_validation_has_best_weights_too(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = dataclasses.replace(example.PRESETS["tiny"], validate_every=5)
    monkeypatch.setitem(example.PRESETS, "tiny", rare)

    run(example, tmp_path, "--epochs", "1")

    assert (tmp_path / "model.pt").exists()


def test_threshold_is_the_best_there_is(example: ModuleType, out: Path) -> None:
    training, _, _ = example.open_shards(out / "shards")
    chosen = example.best_threshold(training)

    def dice(threshold: float) -> float:
        both = total = 0
        for case in training:
            above = (example.blurred(case["image"]) > threshold) & (case["label"] != 2)
            both += int((above & (case["label"] == 1)).sum())
            total += int(above.sum() + (case["label"] == 1).sum())
        return 2 * both / total

    assert dice(chosen) > 0.5
    assert all(dice(chosen) >= dice(other) - 1e-6 for other in np.linspace(-1, 3, 21))


def test_hysteresis_of_classes_is_no_hysteresis(example: ModuleType) -> None:
    p = torch.rand(1, 1, 12, 12, 12) * 0.6
    p[..., 3, 3, 3] = 0.9
    hysteresis = example.BEHIND_NETWORK.steps["hysteresis"]
    classes = p > 0.5

    assert torch.equal(hysteresis(classes.float()), classes)
    assert not torch.equal(hysteresis(p), classes)


def test_medicai_loads_the_weights_and_gives_the_same_logits(
    example: ModuleType, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
    keras = pytest.importorskip("keras")
    models = pytest.importorskip("medicai.models")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras runs on another backend here")
    sizes = example.SMALL
    encoder = models.MiTBackbone(
        input_shape=(40, 40, 40, 1),
        project_dim=list(sizes["embed_dims"]),
        sr_ratios=[4, 2, 1, 1],
        num_heads=list(sizes["num_heads"]),
        depths=list(sizes["depths"]),
        mlp_ratios=list(sizes["mlp_ratios"]),
        layer_norm_epsilon=1e-6,
    )
    theirs = models.SegFormer(
        encoder=encoder, num_classes=3, decoder_head_embedding_dim=sizes["decoder_dim"]
    )
    theirs.load_weights(out / "model.weights.h5")
    ours = SegFormer3D(1, 3, profile="medicai", **sizes).eval()
    load_weights(out / "model.pt", ours)
    image = torch.randn(1, 1, 40, 40, 40)

    with torch.no_grad():
        expected = theirs(image.movedim(1, -1), training=False).movedim(-1, 1)
        assert torch.allclose(ours(image), expected.cpu(), rtol=0, atol=1e-5)


def test_training_starts_from_weights_of_keras(
    example: ModuleType, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[torch.nn.Module] = []
    monkeypatch.setattr(example, "train", lambda net, *_, **__: started.append(net))
    monkeypatch.setattr(example, "infer", lambda *_: [])
    monkeypatch.setattr(example, "report", lambda *_: None)

    run(example, tmp_path, "--data", str(out / "shards"), "--weights", f"{out}/model.weights.h5")

    expected = torch.load(out / "model.pt", weights_only=True)
    for name, parameter in started[0].named_parameters():
        assert torch.equal(parameter, expected[name])
    assert not (tmp_path / "shards").exists()


def test_ctrl_c_costs_nothing(
    example: ModuleType, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = example.WarmupCosine

    class Interrupted(schedule):
        def step(self, *args: int) -> None:
            super().step(*args)
            if self.last_epoch == 3:  # inside the second epoch
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(example, "WarmupCosine", Interrupted)
        with pytest.raises(SystemExit, match=r"is complete\. Go on with --resume"):
            run(example, tmp_path)
    assert len(steps(tmp_path)) == 3

    run(example, tmp_path, "--resume")

    whole, resumed = (torch.load(path / "model.pt", weights_only=True) for path in (out, tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert steps(tmp_path) == steps(out)


def test_two_processes_train_on_the_crops_of_one(
    example: ModuleType, out: Path, tmp_path: Path
) -> None:
    driver = Path(__file__).with_name("surface_in_processes.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launcher = ["-m", "medkit.train.launch", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, "-W", "ignore", *launcher, str(driver), str(tmp_path)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]

    training, _, _ = example.open_shards(out / "shards")
    samples = example.SeededDataset(training, seed=101, transform=example.augmentation(40))
    alone = [
        [epoch, number, checksum(samples[SampleIndex(number, epoch=epoch, draw=number)])]
        for epoch in range(2)
        for number in range(4)
    ]
    shares = [json.loads((tmp_path / f"seen_{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == alone
    assert len(shares[0]) == len(shares[1])
    reports = [json.loads((path / "report.json").read_text()) for path in (out, tmp_path)]
    thresholds = [report["unseen volumes"]["threshold"] for report in reports]
    assert thresholds[0] == thresholds[1]  # over all volumes, whichever process had them
