"""Detect the surfaces of papyrus in a scroll: from TFRecords to masks for the competition.

    python examples/train_surface_detection.py
    python examples/train_surface_detection.py --data FOLDER --preset published
    python -m medkit.train.launch --nproc-per-node 8 examples/train_surface_detection.py --data ...

It does what the TPU pipeline of the Vesuvius surface-detection competition does, without TensorFlow
and Keras: shards of the published schema, a SegFormer of medicai, Dice, cross entropy and
centerline Dice, AdamW of Keras, a rate that warms up and falls, then seven views, hysteresis,
closing, and the competition's score. The best weights are written for PyTorch (model.pt) and for
medicai (model.weights.h5), with masks as TIFF and NIfTI, report.json and surfaces.png, to the
folder out/surfaces. Stop it with Ctrl-C and go on with --resume.

Without --data or --volumes the scrolls are synthetic: sheets that fade and tear, among debris. The
last shard is held out; half of it chooses the weights, the other half gives the scores. The quick
preset takes a minute on a CPU. On the unseen scrolls its network has a Dice of 0.871 and a score of
0.810 without the topology term; the best threshold has 0.718 and 0.690. The published steps behind
the network take some of that away again (0.856, 0.794): synthetic sheets lie so close that closing
joins them.

What the published program does otherwise, with figures, is in docs/guides/surface_detection.md: a
third class that costs 1/3 whatever the network does, a centerline Dice that does not push against
false sheets, crops and volumes normalised differently, and hysteresis of classes, which is none.
In the few steps of the quick preset the published rates reach 0.789, so its own are higher.
"""

import argparse
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, distributed, nn

from medkit.convert import load_keras_weights, save_keras_weights
from medkit.data import Feature, TFRecordDataset, Volume, build_example, read, write, write_tfrecord
from medkit.inference import Chain, View, sliding_window_inference, test_time_augmentation
from medkit.losses import CrossEntropyLoss, DiceLoss, WeightedSum, cldice_loss
from medkit.metrics import DiceScore, surface_detection_score
from medkit.nn import SegFormer3D
from medkit.ops import (
    binary_closing,
    cylinder_element,
    hysteresis_threshold,
    remove_small_components,
)
from medkit.plot import overlay
from medkit.train import (
    CheckpointManager,
    CSVLogger,
    KerasAdamW,
    Progress,
    ResumableBatchSampler,
    ResumableLoader,
    Run,
    SeededDataset,
    Stepper,
    WarmupCosine,
    eval_indices,
    gather_objects,
    init_distributed,
    is_main,
    load_weights,
    make_loader,
    save_weights,
    scaled_lr,
    seed_everything,
    wrap_model,
)
from medkit.transforms import (
    Compose,
    NormalizeIntensity,
    RandomCutOut,
    RandomFlip,
    RandomRotate,
    RandomRotate90,
    RandomShiftIntensity,
    RandomSpatialCrop,
    gaussian_blur,
)

SURFACE, UNLABELLED = 1, 2
SCHEMA = {  # bytes of uint8 arrays (D, H, W), whose sizes are features of their own
    name: Feature(name=name, dtype="uint8", shape=f"{name}_shape", layout="spatial")
    for name in ("image", "label")
}
SurfaceDice = partial(DiceScore, 2, include_background=False, ignore_index=UNLABELLED)
NORMALIZE = NormalizeIntensity(nonzero=True)
VIEWS = (View(), *(View(flip=(axis,)) for axis in range(3)), *(View(turns=k) for k in (1, 2, 3)))
BEHIND_NETWORK = Chain(
    {
        "hysteresis": partial(hysteresis_threshold, low=0.35, high=0.85, connectivity=26),
        "closing": partial(binary_closing, element=cylinder_element(2, 3)),
        "cleaning": partial(remove_small_components, connectivity=26, min_voxels=100),
    }
)
SHOWN = ("threshold", "network", "cleaning")
TOPOLOGY = None  # a function of two masks, e.g. Betti matching; without it the score says so
SMALL = {
    "embed_dims": (16, 32, 64, 128),
    "num_heads": (1, 2, 4, 8),
    "mlp_ratios": (2, 2, 2, 2),
    "depths": (1, 1, 1, 1),
    "decoder_dim": 64,
}


@dataclasses.dataclass(frozen=True)
class Preset:
    """What a run is made with."""

    crop: int
    epochs: int
    validate_every: int
    iterations: int  # erosions of the skeletons
    synthetic: tuple[int, int]  # volumes, and their side
    batch: int = 1  # over all processes; at least one in each
    base_lr: float = 1e-4  # of a batch of two
    highest_lr: float = 3e-4
    workers: int = 0
    network: dict[str, Any] = dataclasses.field(default_factory=dict)  # none is mit_b0


PRESETS = {
    "quick": Preset(
        crop=48,
        epochs=60,
        validate_every=15,
        iterations=3,
        synthetic=(18, 72),
        batch=2,
        base_lr=4e-3,
        highest_lr=4e-3,
        network=SMALL,
    ),
    "published": Preset(
        crop=128, epochs=200, validate_every=5, iterations=50, synthetic=(24, 160), workers=8
    ),
}


def papyrus(seed: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a synthetic scroll and its label: sheets that fade, tear and lie among debris."""
    random = np.random.default_rng(seed)

    def field(sigma: float) -> np.ndarray:
        noise = random.standard_normal((side,) * 3, np.float32)
        smooth = gaussian_filter(noise, sigma, mode="wrap")
        return (smooth - smooth.mean()) / smooth.std()

    _, h, w = np.indices((side,) * 3, np.float32)
    radius = np.hypot(h + 0.7 * side, w + random.uniform(0.2, 0.8) * side) + 3 * field(16)
    off_sheet = np.abs(radius / 14 % 1 - 0.5) * 14  # voxels from the middle of the nearest
    sheet = (off_sheet < 2.5) & (field(8) < 1.5)
    brightness = np.clip(0.6 + 0.35 * field(8), 0.12, 1)
    debris = (field(2) > 1.9) & (off_sheet > 3)
    image = gaussian_filter(sheet * brightness + 0.8 * debris, 1.0)
    image += 0.25 * field(0.7) + 0.1 * field(20)
    label = np.where(field(16) > 1, UNLABELLED, sheet)
    return np.clip(60 + 110 * image, 1, 255).astype(np.uint8), label.astype(np.uint8)


def read_pair(paths: Sequence[Path]) -> list[np.ndarray]:
    """Return an image and its label (D, H, W) from their files, TIFF or any that medkit reads."""
    return [read(path).data[0].numpy() for path in paths]


def record(make: Callable[[], Sequence[np.ndarray]]) -> bytes:
    """Return an image and its label as an example of the published data set."""
    arrays = dict(zip(SCHEMA, make(), strict=True))
    if wrong := [name for name, array in arrays.items() if array.dtype != np.uint8]:
        raise SystemExit(f"{wrong[0]} must be uint8; got {arrays[wrong[0]].dtype}")
    sizes = {f"{name}_shape": array.shape for name, array in arrays.items()}
    return build_example({name: array.tobytes() for name, array in arrays.items()} | sizes)


def write_shards(volumes: Path | None, preset: Preset, folder: Path) -> None:
    """Write the volumes of a folder, or else synthetic ones, in shards of six or a few more."""
    if volumes is None:
        count, side = preset.synthetic
        cases = [partial(papyrus, seed, side) for seed in range(count)]
    else:
        kinds = volumes / "train_images", volumes / "train_labels"
        names = sorted(path.name for path in kinds[0].iterdir())
        cases = [partial(read_pair, [kind / name for kind in kinds]) for name in names]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shards = max(2, len(cases) // 6)
    for number in range(shards):
        part = cases[len(cases) * number // shards : len(cases) * (number + 1) // shards]
        write_tfrecord(map(record, part), folder / f"training_shard_{number}.tfrec")


def open_shards(folder: Path) -> tuple[TFRecordDataset, TFRecordDataset, TFRecordDataset]:
    """Return what to train on and, from the last shard, what to choose by and what to judge by."""
    files = sorted(folder.glob("*.tfrec"), key=lambda path: int(path.stem.rpartition("_")[2]))
    if len(files) < 2:
        raise SystemExit(f"{folder} must hold two files training_shard_<number>.tfrec or more")
    held_out = TFRecordDataset(files[-1:], SCHEMA)
    return TFRecordDataset(files[:-1], SCHEMA), held_out.shard(0, 2), held_out.shard(1, 2)


def augmentation(crop: int) -> Compose:
    """Return the published augmentations in their order, but for the normalisation, now first."""
    known = {"invalid_label": UNLABELLED}
    return Compose(
        [
            NORMALIZE,  # by the whole volume, as where the network is used
            RandomSpatialCrop(size=crop, min_valid_ratio=0.5, max_attempts=10, **known),
            RandomFlip(),
            RandomRotate90(axes=(0, 1), probability=0.4),
            RandomRotate(angle=np.rad2deg(0.2), probability=0.7, border="crop"),
            RandomShiftIntensity(offset=0.1),
            RandomCutOut(size=crop // 4, num_cuts=5, probability=0.8, **known),
        ]
    )


def make_loss(iterations: int) -> WeightedSum:
    """Return Dice and cross entropy, and the centerline Dice of the surface alone."""

    def cldice(logits: Tensor, label: Tensor) -> Tensor:
        surface = logits.softmax(1)[:, SURFACE, None]
        known = label != UNLABELLED
        return cldice_loss(
            surface, label == SURFACE, mask=known, activation=None, iterations=iterations
        )

    dice = DiceLoss(ignore_index=UNLABELLED, class_weight=(1, 1, 0))
    entropy = CrossEntropyLoss(ignore_index=UNLABELLED)
    return WeightedSum({"dice": (1.0, dice), "ce": (1.0, entropy), "cldice": (1.0, cldice)})


def predict(net: nn.Module, image: Tensor, crop: int, views: Sequence[View]) -> Tensor:
    """Return the probability of a surface at every voxel, from logits averaged over views."""
    device = next(net.parameters()).device
    windows = partial(sliding_window_inference, predictor=net, roi_size=crop)
    normalized = NORMALIZE({"image": image})["image"].to(device)
    logits = test_time_augmentation(normalized[None], windows, views=views)
    return logits.softmax(1)[:, SURFACE, None].cpu()


def validate(net: nn.Module, cases: TFRecordDataset, crop: int) -> float:
    """Return the mean Dice of the surface over the cases, which the processes share."""
    net.eval()
    own, total = SurfaceDice(), SurfaceDice()
    for index in eval_indices(len(cases)):
        case = cases[index]
        mask = predict(net, case["image"], crop, VIEWS[:1]) > 0.5
        own.update(mask.long(), case["label"][None])
    for share in gather_objects(own):
        total.merge(share)
    return total.compute().mean()


def train(
    net: nn.Module,
    training: TFRecordDataset,
    validation: TFRecordDataset,
    preset: Preset,
    folder: Path,
    *,
    resume: bool,
) -> None:
    """Leave the network with the weights that validate best, and in two files of weights."""
    if not resume and is_main():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    device = next(net.parameters()).device
    samples = SeededDataset(training, seed=101, transform=augmentation(preset.crop))
    sampler = ResumableBatchSampler(len(samples), preset.batch, seed=101, drop_last=True)
    loader = ResumableLoader(make_loader(samples, sampler, num_workers=preset.workers))
    model = wrap_model(net, sync_bn=device.type == "cuda")  # as JAX; torch has none for CPUs
    lr = scaled_lr(preset.batch, base=preset.base_lr, cap=preset.highest_lr)
    optimizer = KerasAdamW(model.parameters(), lr=lr, weight_decay=1e-5)
    total = len(sampler) * preset.epochs
    schedule = WarmupCosine(
        optimizer, total, warmup_steps=int(0.05 * total), warmup_start=1e-6, alpha=0.1
    )
    stepper = Stepper(model, optimizer, scheduler=schedule)
    checkpoints = CheckpointManager(folder / "checkpoints", metric="dice")
    loss = make_loss(preset.iterations)
    with Run(stepper, loader, checkpoints=checkpoints, log=CSVLogger(folder / "log.csv")) as run:
        for epoch in run.epochs(preset.epochs):
            for batch in run.batches():
                logits = model(batch["image"].to(device))
                run.step(loss(logits, batch["label"].to(device)))
            due = (epoch + 1) % preset.validate_every == 0 or epoch + 1 == preset.epochs
            if due and not run.stopped:
                run.score({"dice": validate(net, validation, preset.crop)})
    if run.stopped:
        raise SystemExit(f"Stopped; {checkpoints.latest()} is complete. Go on with --resume.")
    load_weights(checkpoints.best() / "weights.pt", net)
    if is_main():
        save_weights(net, folder / "model.pt")
        save_keras_weights(net, folder / "model.weights.h5")


def blurred(image: Tensor) -> Tensor:
    """Return what the threshold is laid on: the normalised image, smoothed."""
    return gaussian_blur(NORMALIZE({"image": image})["image"], sigma=1.0)


def best_threshold(cases: TFRecordDataset) -> float:
    """Return the grey value above which the Dice on a few volumes to train on is best."""
    some = [cases[index] for index in range(min(len(cases), 6))]
    label = torch.cat([case["label"].flatten() for case in some])
    grey = torch.cat([blurred(case["image"]).flatten() for case in some])[label != UNLABELLED]
    surface = label[label != UNLABELLED] == SURFACE
    grey, order = grey.sort(descending=True)
    above = torch.arange(1, len(grey) + 1)
    return float(grey[(2 * surface[order].cumsum(0) / (above + surface.sum())).argmax()])


def judge(mask: Tensor, label: Tensor) -> dict[str, Any]:
    """Return Dice and the competition's score of a mask, with its terms, and how it was made."""
    dice = SurfaceDice()
    dice.update(mask.long(), label[None])
    score = surface_detection_score(mask[:, 0].long(), label.long(), topology=TOPOLOGY)
    terms = ("score", "surface_dice", "variation", *(["topology"] if TOPOLOGY else []))
    numbers = {term: float(getattr(score, term)) for term in terms}
    return {"dice": dice.compute().mean(), **numbers, "policy": score.policy}


def infer(
    net: nn.Module, training: TFRecordDataset, unseen: TFRecordDataset, crop: int, folder: Path
) -> list[dict[str, dict[str, Any]]]:
    """Write a mask of each unseen volume and a picture; return scores of ways to a mask."""
    net.eval()
    threshold, share = best_threshold(training), eval_indices(len(unseen))
    own: list[dict[str, dict[str, Any]]] = []
    with Progress(len(share)) as bar:
        for index in share:
            case = unseen[index]
            p = predict(net, case["image"], crop, VIEWS)
            masks = {
                "threshold": blurred(case["image"])[None] > threshold,
                "network": p > 0.5,
                **dict(BEHIND_NETWORK.results(p)),  # each step after those before it
                "as published": BEHIND_NETWORK((p > 0.5).float()),  # hysteresis of classes
            }
            own.append({name: judge(mask, case["label"]) for name, mask in masks.items()})
            path = folder / case["id"].replace(":", "_")
            mask = masks["cleaning"][0].to(torch.uint8)
            for ending in (".tif", ".nii.gz"):
                write(Volume(mask, np.eye(4)), f"{path}{ending}")
            if index == 0:
                overlay(
                    case["image"],
                    {"Truth": case["label"], **{name: masks[name][0] for name in SHOWN}},
                    names={SURFACE: "surface", UNLABELLED: "unlabelled"},
                    position=[size // 2 for size in mask.shape[1:]],
                ).savefig(folder / "surfaces.png", dpi=100)
            bar.update({}, label="inference")
    return [row for rows in gather_objects(own) for row in rows]


def report(rows: list[dict[str, dict[str, Any]]], seconds: float, folder: Path) -> None:
    """Write and print the mean scores over volumes."""
    policy = rows[0]["network"]["policy"]
    terms = [term for term in rows[0]["network"] if term != "policy"]
    scores = {
        name: {term: round(float(np.mean([row[name][term] for row in rows])), 4) for term in terms}
        for name in rows[0]
    }
    content = {"unseen volumes": scores, "policy": policy, "seconds": round(seconds, 1)}
    (folder / "report.json").write_text(json.dumps(content, indent=2) + "\n")
    print(f"\n{len(rows)} unseen volumes; {seconds:.0f} s in all\n{policy}")
    print(f"{'':20}" + "".join(f"{term:>14}" for term in terms))
    for name, values in scores.items():
        print(f"{name:20}" + "".join(f"{values[term]:14.3f}" for term in terms))
    print(f"Masks, weights, picture and numbers are in {folder}/")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of training_shard_<number>.tfrec")
    parser.add_argument("--volumes", type=Path, help="folder of train_images and train_labels")
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--epochs", type=int, help="instead of the preset's")
    parser.add_argument("--weights", type=Path, help="start from a .weights.h5 of Keras")
    parser.add_argument("--device", help="where to compute; by default a GPU if there is one")
    parser.add_argument("--out", type=Path, default=Path("out/surfaces"))
    parser.add_argument("--resume", action="store_true", help="go on after Ctrl-C")
    options = parser.parse_args(arguments)
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"--epochs must be at least 1; got {options.epochs}")
    for path in (options.data, options.volumes, options.weights):
        if path is not None and not path.exists():
            parser.error(f"there is no {path}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Write shards, train, predict, judge and draw."""
    options, start = parse(arguments), time.monotonic()
    place = init_distributed()
    seed_everything(0)
    preset = PRESETS[options.preset]
    epochs = preset.epochs if options.epochs is None else options.epochs
    batch = max(preset.batch, place.world_size)
    preset = dataclasses.replace(preset, epochs=epochs, batch=batch)
    shards = options.data or options.out / "shards"
    if options.data is None and not options.resume and is_main():
        write_shards(options.volumes, preset, shards)
    gather_objects(None)  # the others wait
    training, validation, unseen = open_shards(shards)
    net = SegFormer3D(1, 3, profile="medicai", **preset.network)
    if options.weights is not None:
        load_keras_weights(net, options.weights)
    net.to(options.device or place.device)
    seed_everything(0, rank=place.rank)
    train(net, training, validation, preset, options.out, resume=options.resume)
    rows = infer(net, training, unseen, preset.crop, options.out)
    if is_main():
        report(rows, time.monotonic() - start, options.out)
    if place.world_size > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
