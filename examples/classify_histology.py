"""Classify tissue by its picture, split by patient, and show what the network looked at.

    python examples/classify_histology.py
    python examples/classify_histology.py --data LungHist700 --resolution 20x --preset published

A residual network of Keras (ResNet50V2, weight for weight) learns the classes of tiles of tissue.
The data set of the published program is LungHist700: a folder with data.csv and
data/images/<class>/<name>.jpg; its patients are split as published. Weights come from Keras by
--weights, or the network from timm by --backbone. Without --data the tissue is scikit-image's
immunohistochemistry picture in tiles of 64 x 64; the class is how much of a tile is stained brown,
in thirds, and 36 squares of it stand for patients.

It writes predictions.csv, report.json, model.pt and three pictures to out/histology. A run that
was stopped, by Ctrl-C or a kill, goes on when it is started again with --resume.

The quick preset takes half a minute on a CPU. On tiles of squares it never saw 0.87 are right (0.74
to 0.96 over squares; naming the commonest class 0.36), with a Matthews correlation of 0.81 and an
area under the curve of 0.98. Split by tile instead of by square the same run claims 0.90 and 0.85.
LungHist700 itself has not been run here.

What the published programs do otherwise: the one in Keras feeds [0, 1] to weights made for [-1, 1];
its port to PyTorch has another network, no early stopping and no Matthews correlation, and takes
class weights as PyTorch does, divided by their sum, and not as Keras does. Both stretch square
crops to 4:3. docs/guides/histology.md has the figures.
"""

import argparse
import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from medkit.convert import load_keras_weights
from medkit.data import group_split
from medkit.inference import GradCAM
from medkit.metrics import (
    Interval,
    auroc,
    bootstrap_statistic,
    calibration,
    confusion_matrix,
    confusion_scores,
)
from medkit.nn import KerasResNetV2, timm_encoder
from medkit.plot import confusion_matrix as draw_confusion
from medkit.plot import reliability_diagram
from medkit.train import (
    CheckpointManager,
    CSVLogger,
    EarlyStopping,
    KerasAdamW,
    ResumableBatchSampler,
    ResumableLoader,
    Run,
    SeededDataset,
    Stepper,
    make_loader,
    save_weights,
    seed_everything,
)
from medkit.transforms import (
    Compose,
    RandomAffine,
    RandomBrightness,
    RandomContrast,
    RandomElastic,
    RandomFlip,
    RandomGamma,
    RandomStainJitter,
)

SPLITS = {  # patients of training, validation and test in the paper of LungHist700
    "20x": (
        {*range(2, 6), 7, 8, 12, *range(14, 19), 20, 21, *range(23, 27), *range(28, 31), 33}
        | {*range(36, 40), 41, 42, 45},
        {1, 6, 27, 32, 44},
        {9, 13, 31, 40},
    ),
    "40x": (
        {2, 6, 8, 9, 10, 12, 13, 14, 16, 18, 19, 21, 22, 24, 28, 29, 31, *range(33, 37), 38, 40}
        | {44},
        {1, 4, 17, 26, 30, 37, 45},
        {11, 15, 20, 25, 32, 43},
    ),
}
TAP = "conv5_block3.3_conv"  # where the published Grad-CAM looks, before the residual is added
LOOKS = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@dataclasses.dataclass(frozen=True)
class Preset:
    """What a run is made with."""

    channels: int = 64
    batch: int = 8
    lr: float = 1e-4
    epochs: int = 2000
    patience: int = 25
    plateau: int = 10
    size: tuple[int, int] = (300, 400)
    draws: int = 1000
    momentum: float = 0.01  # of batch norm; Keras' 0.99


PRESETS = {
    "quick": Preset(
        channels=8, batch=16, lr=2e-3, epochs=30, size=(64, 64), draws=300, momentum=0.1
    ),
    "published": Preset(),
}


class Tissue(NamedTuple):
    """Pictures with their classes and patients."""

    images: Sequence[Tensor | Path]  # bytes (3, H, W), or a file
    labels: Tensor
    patients: list[int]
    names: list[str]
    parts: list[list[int]]  # pictures of training, validation and test


def stained_tiles(size: int) -> Tissue:
    """Return tiles of a real section; a class is a third of them by how much is stained brown."""
    from skimage import data
    from skimage.color import rgb2hed

    section = data.immunohistochemistry()
    brown = rgb2hed(section)[..., 2]
    tiles, amounts, patients = [], [], []
    block = 85
    for number in range(36):
        top, left = (block * i for i in divmod(number, 6))
        for y in range(top, top + block - size + 1, 10):
            for x in range(left, left + block - size + 1, 10):
                box = slice(y, y + size), slice(x, x + size)
                tiles.append(torch.from_numpy(section[box].copy()).movedim(-1, 0))
                amounts.append(brown[box].mean())
                patients.append(number)
    labels = torch.from_numpy(np.searchsorted(np.quantile(amounts, [1 / 3, 2 / 3]), amounts))
    parts = group_split(patients, ratios=(20, 6, 10), labels=labels.tolist(), seed=1)
    return Tissue(tiles, labels, patients, ["little", "some", "much"], parts)


def lung_tissue(folder: Path, resolution: str) -> Tissue:
    """Return the pictures of LungHist700 at one magnification, split as published."""
    with (folder / "data.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["resolution"] == resolution]
    names = sorted({row["superclass"] for row in rows})
    images, parts = [], [[], [], []]
    for number, row in enumerate(rows):
        kind = "_".join(filter(None, (row["superclass"], row.get("subclass"))))
        name = f"{kind}_{resolution}_{row['image_id']}.jpg"
        images.append(folder / "data" / "images" / kind / name)
        for part, patients in zip(parts, SPLITS[resolution], strict=True):
            if int(row["patient_id"]) in patients:
                part.append(number)
    labels = torch.tensor([names.index(row["superclass"]) for row in rows])
    return Tissue(images, labels, [int(row["patient_id"]) for row in rows], names, parts)


class Pictures(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Pictures of one part in [0, 1], at one size, with their class."""

    def __init__(self, tissue: Tissue, part: int, size: tuple[int, int]) -> None:
        self.tissue, self.numbers, self.size = tissue, tissue.parts[part], size

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number = self.numbers[index]
        image = self.tissue.images[number]
        if isinstance(image, Path):
            with Image.open(image) as file:
                small = file.convert("RGB").resize(self.size[::-1], Image.Resampling.BILINEAR)
            image = torch.from_numpy(np.array(small)).movedim(-1, 0)
        return {"image": image / 255, "label": self.tissue.labels[number]}


def augmentation() -> LOOKS:
    """Return the published changes; crops keep the shape of a picture, colours are stains."""
    changes = Compose(
        [
            RandomFlip(axes=(0, 1)),
            RandomAffine(rotation=0, scale=(1.0, 1.2), probability=0.4, fill=1.0),
            RandomElastic(spacing=32, displacement=3, probability=0.2, fill=1.0),
            RandomGamma(gamma=(0.8, 1.2), probability=0.5, keeps_statistics=False),
            RandomBrightness(factor=(0.8, 1.2), probability=0.2),
            RandomContrast(factor=(0.8, 1.2), probability=0.2),
            RandomStainJitter(factor=0.1, offset=0.01, probability=0.2),
        ]
    )
    return lambda sample: {**sample, **changes({"image": sample["image"]})}


def albumentations_augmentation(size: tuple[int, int]) -> LOOKS:
    """Return the published changes themselves, where albumentations is installed."""
    import albumentations as A

    height, width = size
    changes = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            A.GridDistortion(p=0.2),
            A.RandomSizedCrop((height * 5 // 6, height), size, w2h_ratio=width / height, p=0.4),
            A.RandomGamma((80, 120), p=0.5),
            A.RandomBrightnessContrast(0.2, 0.2, p=0.2),
            A.HueSaturationValue(5, 20, 10, p=0.2),
        ]
    )

    def change(sample: dict[str, Tensor]) -> dict[str, Tensor]:
        changes.set_random_seed(int(torch.randint(2**31, ())))  # SeededDataset seeds torch
        image = changes(image=sample["image"].movedim(0, -1).numpy())["image"]
        return {**sample, "image": torch.from_numpy(image).movedim(-1, 0)}

    return change


class TimmClassifier(nn.Module):
    """A backbone of timm with the published head."""

    def __init__(self, name: str, num_classes: int, *, pretrained: bool) -> None:
        super().__init__()
        self.encoder = timm_encoder(name, pretrained=pretrained)
        self.last_map = nn.Identity()  # for Grad-CAM
        width = self.encoder.channels[-1]
        self.head = nn.Sequential(
            nn.Linear(width, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, class)."""
        return self.head(self.last_map(self.encoder(x)[-1]).mean((2, 3)))


def build(options: argparse.Namespace, preset: Preset, num_classes: int) -> nn.Module:
    """Return the network, with the weights that were asked for."""
    if options.backbone:
        return TimmClassifier(options.backbone, num_classes, pretrained=options.pretrained)
    model = KerasResNetV2(
        num_classes=num_classes, hidden_dim=256, dropout=0.5, base_channels=preset.channels
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = preset.momentum
    if options.weights:
        body = KerasResNetV2(base_channels=preset.channels)
        load_keras_weights(body, options.weights)
        model.load_state_dict(body.state_dict(), strict=False)  # the head stays as it is
    return model


def prepared(image: Tensor) -> Tensor:
    """Return pictures in [-1, 1], as Keras' weights expect them."""
    return 2 * image - 1


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return n / (K n_k), as scikit-learn and Keras call balanced."""
    counts = torch.bincount(labels, minlength=num_classes)
    return len(labels) / (num_classes * counts)


def keras_loss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of weighted losses: divided by their number, not by the sum of weights."""
    return (F.cross_entropy(logits, labels, reduction="none") * weight[labels]).mean()


@torch.no_grad()
def predict(model: nn.Module, pictures: Pictures, device: str, batch: int) -> Tensor:
    """Return logits of every picture of a part."""
    model.eval()
    loader = torch.utils.data.DataLoader(pictures, batch)
    return torch.cat([model(prepared(each["image"].to(device))).cpu() for each in loader])


def train(
    model: nn.Module, tissue: Tissue, preset: Preset, options: argparse.Namespace
) -> dict[str, float]:
    """Train with early stopping, leave the best weights in the model, say what it took."""
    parts = [Pictures(tissue, part, preset.size) for part in (0, 1)]
    labels = [tissue.labels[part.numbers] for part in parts]
    weight = class_weights(labels[0], len(tissue.names))
    looks = albumentations_augmentation(preset.size) if options.albumentations else augmentation()
    data = SeededDataset(parts[0], seed=options.seed, transform=looks)
    sampler = ResumableBatchSampler(len(data), preset.batch, seed=options.seed)
    loader = ResumableLoader(make_loader(data, sampler, num_workers=options.workers))
    optimizer = KerasAdamW(model.parameters(), lr=preset.lr, weight_decay=0.0)
    stepper = Stepper(model, optimizer)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(  # Keras counts one epoch less
        optimizer, patience=preset.plateau - 1, threshold=1e-4, threshold_mode="abs", min_lr=1e-7
    )
    stopping = EarlyStopping(preset.patience, metric="val_loss", model=model)
    with Run(
        stepper,
        loader,
        checkpoints=CheckpointManager(options.out / "checkpoints", metric="val_loss", mode="min"),
        log=CSVLogger(options.out / "log.csv"),
        early_stopping=stopping,
        objects={"plateau": plateau},
    ) as run:
        for _ in run.epochs(preset.epochs):
            model.train()
            for batch in run.batches():
                image, target = (batch[key].to(options.device) for key in ("image", "label"))
                run.step(keras_loss(model(prepared(image)), target, weight.to(options.device)))
            if run.stopped:
                continue
            logits = predict(model, parts[1], options.device, preset.batch)
            loss = float(keras_loss(logits, labels[1], weight))
            accuracy = float((logits.argmax(1) == labels[1]).float().mean())
            run.score({"val_loss": loss, "val_accuracy": accuracy})
            plateau.step(loss)
    if run.stopped:
        raise SystemExit("stopped; go on with --resume")
    save_weights(model, options.out / "model.pt")
    return {"epochs": loader.epoch, "best validation loss": round(stopping.best, 4)}


def judge(probability: Tensor, labels: Tensor, patients: Sequence[int], draws: int) -> dict:
    """Return scores of pictures with intervals over patients, and of patients."""
    classes = probability.shape[1]

    def scores(samples: Tensor) -> dict[str, float]:
        p, truth = probability[samples], labels[samples]
        counts = confusion_scores(confusion_matrix(p.argmax(1), truth, num_classes=classes))
        return {
            "accuracy": counts.accuracy,
            "macro F1": counts.macro_f1,
            "Matthews correlation": counts.mcc,
            "AUROC, one against one": auroc(p, truth, multi_class="ovo").mean,
        }

    report: dict = {}
    for name in scores(torch.arange(len(labels))):
        seeded = torch.Generator().manual_seed(0)
        interval: Interval = bootstrap_statistic(
            lambda samples, name=name: scores(samples)[name],
            patients,
            num_draws=draws,
            generator=seeded,
        )
        low, high = round(interval.low, 3), round(interval.high, 3)
        report[name] = {"value": round(interval.mean, 3), "95 % interval": [low, high]}
    report["patients"] = report_patients(probability, labels, patients)
    report["expected calibration error"] = round(
        calibration(probability, labels, num_bins=10).ece, 3
    )
    return report


def report_patients(probability: Tensor, labels: Tensor, patients: Sequence[int]) -> dict:
    """Return how many patients get the class that most of their pictures have."""
    right = 0
    for patient in (found := sorted(set(patients))):
        mine = torch.tensor([i for i, p in enumerate(patients) if p == patient])
        truth = Counter(labels[mine].tolist()).most_common(1)[0][0]
        right += int(probability[mine].mean(0).argmax()) == truth
    return {"number": len(found), "right by mean probability": right}


def draw_attention(
    model: nn.Module, tissue: Tissue, pictures: Pictures, options: argparse.Namespace
) -> plt.Figure:
    """Return pictures of each class with what speaks for the class that was found."""
    tap = TAP if isinstance(model, KerasResNetV2) else "last_map"
    shown = [
        next(i for i in range(len(pictures)) if int(pictures[i]["label"]) == label)
        for label in sorted(set(tissue.labels[pictures.numbers].tolist()))
    ]
    images = torch.stack([pictures[i]["image"] for i in shown])
    x = prepared(images.to(options.device))
    found = model.eval()(x).argmax(1).tolist()
    maps = GradCAM(model, tap, activation="softmax")(x, target=found)[:, 0].detach().cpu()
    figure, axes = plt.subplots(
        2, len(shown), figsize=(3 * len(shown), 5.5), squeeze=False, layout="constrained"
    )
    for column, index in enumerate(shown):
        truth = tissue.names[int(pictures[index]["label"])]
        picture = images[column].movedim(0, -1).numpy()
        axes[0, column].imshow(picture)
        axes[0, column].set_title(f"{truth}, found {tissue.names[found[column]]}")
        axes[1, column].imshow(picture.mean(-1), cmap="gray", vmin=0, vmax=1)
        clear = maps[column].masked_fill(maps[column] < 0.25, torch.nan).numpy()
        heat = axes[1, column].imshow(clear, cmap="inferno", alpha=0.5, vmin=0, vmax=1)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.colorbar(heat, ax=axes, label="Grad-CAM of the class found", shrink=0.6)
    return figure


def write_predictions(path: Path, tissue: Tissue, pictures: Pictures, probability: Tensor) -> None:
    """Write class and probabilities of every picture of the test."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "patient", "class", "found", *tissue.names])
        for number, p in zip(pictures.numbers, probability, strict=True):
            image = tissue.images[number]
            name = image.name if isinstance(image, Path) else number
            classes = [tissue.names[int(i)] for i in (tissue.labels[number], p.argmax())]
            shares = [round(value, 4) for value in p.tolist()]
            writer.writerow([name, tissue.patients[number], *classes, *shares])
    temporary.replace(path)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of LungHist700")
    parser.add_argument("--resolution", choices=SPLITS, default="20x")
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--epochs", type=int, help="at most as many, instead of the preset's")
    parser.add_argument("--weights", type=Path, help="Keras file of ResNet50V2 without its top")
    parser.add_argument("--backbone", help="a network of timm instead, e.g. resnetv2_50.a1h_in1k")
    parser.add_argument("--pretrained", action="store_true", help="with timm's weights")
    parser.add_argument("--albumentations", action="store_true", help="its changes, not medkit's")
    parser.add_argument("--workers", type=int, default=0, help="processes that read pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("out/histology"))
    options = parser.parse_args(arguments)
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"--epochs must be at least 1; got {options.epochs}")
    for path in (options.data, options.weights):
        if path is not None and not path.exists():
            parser.error(f"there is no {path}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, judge on patients never seen, write and draw."""
    options = parse(arguments)
    preset = PRESETS[options.preset]
    if options.epochs is not None:
        preset = dataclasses.replace(preset, epochs=options.epochs)
    if any(options.out.glob("checkpoints/step_*")) and not options.resume:
        raise SystemExit(f"{options.out} holds a run: go on with --resume, or choose another --out")
    options.out.mkdir(parents=True, exist_ok=True)
    seed_everything(options.seed)
    size = preset.size
    tissue = (
        lung_tissue(options.data, options.resolution) if options.data else stained_tiles(size[0])
    )
    sizes = [len(part) for part in tissue.parts]
    print(f"{sizes[0]} pictures to train on, {sizes[1]} to choose by, {sizes[2]} to judge by")

    model = build(options, preset, len(tissue.names)).to(options.device)
    training = train(model, tissue, preset, options)
    test = Pictures(tissue, 2, size)
    probability = predict(model, test, options.device, preset.batch).softmax(1)
    labels = tissue.labels[test.numbers]
    patients = [tissue.patients[number] for number in test.numbers]
    report = {"training": training, "test": judge(probability, labels, patients, preset.draws)}
    most = Counter(labels.tolist()).most_common(1)[0][1]
    report["accuracy of naming the commonest class"] = round(most / len(labels), 3)
    write_predictions(options.out / "predictions.csv", tissue, test, probability)
    (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    counts = confusion_matrix(probability.argmax(1), labels, num_classes=len(tissue.names))
    confidence, found = probability.max(1)
    figures = {
        "confusion": draw_confusion(counts, names=tissue.names),
        "reliability": reliability_diagram(confidence, found == labels),
        "attention": draw_attention(model, tissue, test, options),
    }
    for name, figure in figures.items():
        figure.savefig(options.out / f"{name}.png", dpi=100)
    print(json.dumps(report, indent=2))
    print(f"Predictions, report and pictures are in {options.out}/")


if __name__ == "__main__":
    main()
