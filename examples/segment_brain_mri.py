"""Segment the tissues of a brain MRI with SegFormer3D, and judge it on what it never saw.

    python examples/segment_brain_mri.py

The data ship with the nilearn package: the ICBM 2009a template, an average T1 image of 152 people
without the skull, and its maps of grey and white matter. A voxel of the brain belongs to the most
probable of grey matter, white matter and the rest (fluid, vessels, membranes: "CSF").

The template is symmetric, so left and right cannot be kept apart; front and back can. The network
is trained on the front of the head (y > -6 mm), its best epoch is chosen on a slab in the middle,
and it is judged on the back (y < -46 mm): the occipital lobes and most of the cerebellum, of which
it has seen nothing. The slab is as thick as a window of the network, so no window that reaches the
back holds a voxel it was trained on.

Beside it stand three-class Otsu thresholds of the same image, inside the same mask. They are those
of the whole head, which do better on the back than the back's own. In the front, where intensity
alone tells tissues apart, they are much harder to beat.

It writes brain_segmentation.png, history.png, prediction.nii.gz, metrics.json and checkpoints to
the folder out. Stop it with Ctrl-C and go on with --resume.
"""

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from skimage.filters import threshold_multiotsu
from torch import Tensor, nn
from torch.utils.data import DataLoader

from medkit.data import ForegroundPatchSampler, PatchDataset, Volume, VolumeDataset, read, write
from medkit.inference import sliding_window_inference
from medkit.losses import CrossEntropyLoss, DiceLoss, WeightedSum
from medkit.metrics import DiceScore, Scores, dice_score
from medkit.nn import SegFormer3D
from medkit.plot import history, overlay
from medkit.train import (
    CheckpointError,
    CheckpointManager,
    History,
    Stepper,
    WarmupCosine,
    evaluate,
    fit,
    load_weights,
    param_groups,
    seed_everything,
)

TISSUES = {1: "CSF", 2: "grey matter", 3: "white matter"}
WINDOW = 40
TEST, VALIDATE, TRAIN = slice(20, 88), slice(88, 128), slice(128, 214)  # along h: back to front


class DetailedSegFormer3D(nn.Module):
    """SegFormer3D with a head at full resolution.

    SegFormer3D decides at a quarter of the resolution, too coarse for a cortex of 3 mm at 1 mm
    voxels. Here it gives features instead, and two convolutions decide from them and the image.
    """

    def __init__(self, num_classes: int, features: int = 8, hidden: int = 16) -> None:
        super().__init__()
        self.context = small_segformer(features)
        self.head = nn.Sequential(
            nn.Conv3d(1 + features, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv3d(hidden, num_classes, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of every class at every voxel."""
        return self.head(torch.cat([image, self.context(image)], dim=1))


def small_segformer(num_classes: int) -> SegFormer3D:
    """Return a SegFormer3D of half a million parameters, an eighth of the published one."""
    return SegFormer3D(
        in_channels=1,
        num_classes=num_classes,
        embed_dims=(16, 32, 64, 128),
        num_heads=(1, 2, 4, 8),
        mlp_ratios=(2, 2, 2, 2),
        depths=(1, 1, 1, 1),
        decoder_dim=64,
    )


MODELS = {"segformer3d": DetailedSegFormer3D, "segformer3d-plain": small_segformer}


def load_head() -> tuple[Volume, Volume]:
    """Return the T1 image and its tissues."""
    with resources.as_file(resources.files("nilearn") / "datasets" / "data") as folder:
        t1, grey, white = (
            read(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")
            for name in ("t1", "gm", "wm")
        )
    maps = torch.cat([grey.data, white.data]).int()  # 255 means certain
    rest = (255 - maps.sum(dim=0, keepdim=True)).clamp(min=0)
    tissue = 1 + torch.cat([rest, maps]).argmax(dim=0, keepdim=True)
    return t1, t1.like(torch.where(t1.data > 0, tissue, 0).to(torch.uint8))


def slab(volume: Volume, part: slice) -> Volume:
    """Return the planes of a part, from back to front."""
    depth, _, width = volume.spatial_shape
    return volume.crop((0, part.start, 0), (depth, part.stop - part.start, width))


def by_tissue(scores: Scores) -> dict[str, float]:
    """Return Dice per tissue and their mean, by name."""
    values = scores.values[0].tolist()
    return {"mean": scores.mean(), **dict(zip(TISSUES.values(), values, strict=True))}


def otsu(t1: Volume) -> Volume:
    """Return the tissues by two thresholds of the intensity inside the brain."""
    array = t1.data.numpy()
    thresholds = threshold_multiotsu(array[array > 0], classes=3)
    return t1.like(torch.from_numpy(np.where(array > 0, 1 + np.digitize(array, thresholds), 0)))


def dice(prediction: Volume, truth: Volume) -> dict[str, float]:
    """Return the Dice score of each tissue."""
    maps = (volume.data.long() for volume in (prediction, truth))
    return by_tissue(dice_score(*maps, num_classes=4, include_background=False))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="segformer3d")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=150, help="optimizer steps in an epoch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--resume", action="store_true", help="go on after Ctrl-C")
    parser.add_argument("--quick", action="store_true", help="a few steps on a piece of the head")
    options = parser.parse_args(arguments)
    if options.quick:
        options.epochs, options.steps = 2, 2
    return options


def predict(model: nn.Module, images: Tensor) -> Tensor:
    """Return the class of every voxel, window by window."""
    scores = sliding_window_inference(images, model, roi_size=WINDOW, overlap=0.25)
    return scores.argmax(dim=1, keepdim=True)


def train(image: Volume, truth: Volume, options: argparse.Namespace) -> tuple[nn.Module, History]:
    """Return the network of the best epoch and the numbers of all."""

    def part(of: slice) -> VolumeDataset:
        return VolumeDataset([{"image": slab(image, of), "label": slab(truth, of)}], cache=True)

    patches = PatchDataset(
        part(TRAIN),
        patch_size=WINDOW,
        sampler=ForegroundPatchSampler(probability=1.0),
        patches_per_case=2 * options.steps,
    )
    held_out = DataLoader(part(VALIDATE))
    model = MODELS[options.model](num_classes=4).to(options.device)
    optimizer = torch.optim.AdamW(param_groups(model, weight_decay=1e-2), lr=4e-3)
    steps = options.epochs * options.steps
    schedule = WarmupCosine(optimizer, total_steps=steps, warmup_steps=steps // 20)
    checkpoints = CheckpointManager(options.out / "checkpoints", metric="dice/mean")
    metrics = {"dice": DiceScore(4, include_background=False)}

    def validate() -> dict[str, float]:
        return evaluate(
            model, held_out, metrics, predict=lambda x: predict(model, x), score=by_tissue
        )

    try:
        result = fit(
            model,
            DataLoader(patches, batch_size=2),
            WeightedSum({"dice": (1.0, DiceLoss()), "ce": (1.0, CrossEntropyLoss())}),
            stepper=Stepper(model, optimizer, scheduler=schedule, clip_norm=1.0),
            epochs=options.epochs,
            validate=validate,
            checkpoints=checkpoints,
            resume=options.resume,
        )
    except CheckpointError as error:
        raise SystemExit(
            f"This run cannot go on: {error}\n"
            f"Give the options it began with, or begin anew without --resume."
        ) from None
    if result.reason == "signal":
        raise SystemExit(f"Stopped; {checkpoints.latest()} is complete. Go on with --resume.")
    load_weights(checkpoints.best() / "weights.pt", model)
    return model.eval(), result.history


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, predict, judge and draw."""
    options = parse(arguments)
    start = time.monotonic()
    seed_everything(0)
    head, tissues = load_head()
    corner, size = ((40, 0, 70), (48, 233, 48)) if options.quick else ((0, 0, 20), (156, 233, 157))
    t1, truth = head.crop(corner, size), tissues.crop(corner, size)  # little but the brain
    known = slab(t1, TRAIN).data
    mean, std = known[known > 0].float().mean(), known[known > 0].float().std()
    image = t1.like((t1.data - mean) / std)
    if not options.resume:
        shutil.rmtree(options.out / "checkpoints", ignore_errors=True)
    model, run = train(image, truth, options)

    labels = predict(model, image.data[None].to(options.device))[0]
    prediction = t1.like(labels.cpu().to(torch.uint8))
    unseen = slab(truth, TEST)
    scores = {
        options.model: dice(slab(prediction, TEST), unseen),
        "otsu": dice(slab(otsu(t1), TEST), unseen),
    }
    back = [-index for index in corner]
    write(prediction.crop(back, head.spatial_shape, fill=0.0), options.out / "prediction.nii.gz")
    report = {"dice of the unseen part": scores, "seconds": round(time.monotonic() - start, 1)}
    (options.out / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    shown = slice(TEST.start, TRAIN.stop)
    overlay(
        slab(t1, shown),
        {"Truth": slab(truth, shown), "Prediction": slab(prediction, shown)},
        names=TISSUES,
        position=(size[0] // 2, 40, size[2] // 3),
        boxes={"unseen": ((0, 0, 0), (size[0], TEST.stop - TEST.start, size[2]))},
    ).savefig(options.out / "brain_segmentation.png", dpi=100)
    history(run.epochs, best="dice/mean").savefig(options.out / "history.png", dpi=100)

    print(f"\nDice of the back of the head, never trained on; {report['seconds']:.0f} s in all")
    print(f"{'':20}" + "".join(f"{name:>14}" for name in scores[options.model]))
    for name, values in scores.items():
        print(f"{name:20}" + "".join(f"{value:14.3f}" for value in values.values()))
    print(f"Pictures, prediction and numbers are in {options.out}/")


if __name__ == "__main__":
    main()
