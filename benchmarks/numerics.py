"""What other libraries return where options meet, beside what is right.

    python benchmarks/numerics.py

Each row is one call on one input, made in this process: the right value, from a closed form or a
formula written out in NumPy's float64, what medkit returns and what the peer returns. A library
that is not installed is left out. The cases are those that ``tests/contract`` pins.
"""

import gzip
import importlib.util
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import Tensor

from _record import note
from medkit.data import DataError, read, read_tfrecord, write_tfrecord
from medkit.inference import sliding_window_inference
from medkit.losses import ClDiceLoss, dice_loss, focal_loss, generalized_dice_loss
from medkit.metrics import hausdorff_distance

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import _torchvision_shim

Row = tuple[str, object, object, object]
FLIPS = 30


def logits_and_labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 8, 8, 8, generator=generator)
    return logits, torch.randint(0, 3, (1, 1, 8, 8, 8), generator=generator)


def focal_formula(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> np.ndarray:
    """Return (1 - p)^gamma * -log p of the true class, in float64, per voxel."""
    z = logits.double().numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    true = np.take_along_axis(p, labels.numpy(), 1)
    return (1 - true) ** gamma * -np.log(true)


def monai_losses() -> Iterator[Row]:
    from monai.losses import DiceLoss, FocalLoss, GeneralizedDiceLoss, MaskedLoss

    logits, labels = logits_and_labels()
    focal = FocalLoss(use_softmax=True, include_background=False, to_onehot_y=True)
    of_background = [
        torch.autograd.grad(run(logits.requires_grad_(), labels), logits)[0][:, 0].abs().sum()
        for run in (lambda z, t: focal_loss(z, t, include_background=False), focal)
    ]
    what = "focal loss without background: gradient at the background's logits, summed"
    yield what, "not 0", *(gradient.item() for gradient in of_background)
    logits = logits.detach()
    right = float(focal_formula(logits, labels).mean())
    plain = FocalLoss(use_softmax=True, to_onehot_y=True)(logits, labels).item()
    ignoring = FocalLoss(use_softmax=True, to_onehot_y=True, ignore_index=255)(logits, labels)
    mine = focal_loss(logits, labels, ignore_index=255).item() / focal_loss(logits, labels).item()
    what = "focal loss of 3 classes: ignoring a label that does not occur multiplies it by"
    yield what, 1.0, mine, ignoring.item() / plain
    yield (
        "focal loss of 3 classes, mean over voxels (MONAI: over classes too)",
        right,
        focal_loss(logits, labels).item(),
        plain,
    )
    target = torch.zeros(1, 1, 128, 128, 128)
    target[..., :100, :100, :100] = 1
    flat = torch.full_like(target, float(np.log(0.05 / 0.95)))
    right = 1 - 2 * 0.05 * 100**3 / (0.05 * 128**3 + 100**3)
    mine = generalized_dice_loss(flat, target, activation="sigmoid").item()
    theirs = GeneralizedDiceLoss(sigmoid=True)(flat, target).item()
    yield "generalized Dice of a cube of 100^3 in 128^3, p = 0.05", right, mine, theirs
    half, ones = torch.zeros(1, 1, 96, 96, 96).half(), torch.zeros(1, 1, 96, 96, 96)
    ones[..., :48] = 1
    mine = dice_loss(half, ones.half(), activation="sigmoid").item()
    yield (
        "Dice loss of float16 logits, 96^3, p = 1/2",
        0.5,
        mine,
        DiceLoss(sigmoid=True)(half, ones.half()).item(),
    )
    z, seen = torch.linspace(-3, 3, 64).reshape(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4)
    seen[..., :2] = 1
    t = (z > 0.5).float()
    p = 1 / (1 + np.exp(-z.double().numpy())) * seen.numpy()
    right = 1 - 2 * (p * t.numpy()).sum() / (p.sum() + (t * seen).sum().item())
    mine = dice_loss(z, t, activation="sigmoid", mask=seen.bool()).item()
    yield (
        "Dice loss, half of the voxels masked",
        right,
        mine,
        MaskedLoss(DiceLoss(sigmoid=True, smooth_nr=0, smooth_dr=1e-8))(z, t, seen).item(),
    )


def monai_rest() -> Iterator[Row]:
    from monai.inferers import sliding_window_inference as theirs
    from monai.metrics import HausdorffDistanceMetric

    found = torch.zeros(2, 1, 16, 16, 16, dtype=torch.bool)
    truth = found.clone()
    truth[:, :, 4:8, 4:8, 4:8] = True
    found[0, :, 4:8, 4:8, 1:8] = True
    metric = HausdorffDistanceMetric(include_background=True, percentile=95)
    metric(found, truth)
    mine = hausdorff_distance(found, truth, percent=95)
    what = "mean 95 % Hausdorff distance of a case at 3 mm and one missed altogether"
    yield what, "more than 3", mine.mean(), metric.aggregate().item()
    x = torch.rand(1, 1, 40, 40, 40).bfloat16()
    off = [
        (run(x, roi_size=(16, 16, 16), **options).float() - x.float()).abs().max().item()
        for run, options in (
            (lambda x, **o: sliding_window_inference(x, torch.clone, **o), {}),
            (lambda x, **o: theirs(x, sw_batch_size=1, predictor=torch.clone, **o), GAUSSIAN),
        )
    ]
    yield "sliding window of bfloat16 through no network: largest error", "0", *off


GAUSSIAN = {"overlap": 0.5, "mode": "gaussian"}


def smp() -> Iterator[Row]:
    from segmentation_models_pytorch.losses import DiceLoss

    half, ones = torch.zeros(1, 1, 1024, 1024).half(), torch.zeros(1, 1, 1024, 1024)
    ones[..., :512] = 1
    mine = dice_loss(half, ones.half(), activation="sigmoid").item()
    theirs = DiceLoss("binary")(half, ones.half()).item()
    yield "Dice loss of float16 logits, 1024^2, p = 1/2", 0.5, mine, theirs


def medicai() -> Iterator[Row]:
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    from medicai.losses import BinaryCenterlineDiceLoss

    target = torch.zeros(1, 1, 16, 16, 16)
    target[..., 4:12, 7:10, 7:10] = 1
    probability = torch.where(target > 0, 0.9, 0.1)
    probability[..., 7:10, 12:15, 4:12] = 0.6  # a branch that is not there

    def gradient(run: Callable[[Tensor], Tensor]) -> float:
        p = probability.clone().requires_grad_()
        run(p).sum().backward()
        return p.grad[..., 7:10, 12:15, 4:12].abs().max().item()

    mine = gradient(lambda p: ClDiceLoss(activation=None, iterations=3)(p, target))
    theirs = gradient(
        lambda p: BinaryCenterlineDiceLoss(from_logits=False, num_classes=1, iters=3)(
            target.movedim(1, -1), p.movedim(1, -1)
        )
    )
    yield "clDice: gradient on a false branch", "not 0", mine, theirs


def flips(good: bytes, suffix: str, load: Callable[[Path], object], same: object) -> str:
    """Return how many files with one flipped bit a reader gives without a word."""
    generator, silent = np.random.default_rng(0), 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        for _ in range(FLIPS):
            broken = bytearray(good)
            broken[generator.integers(len(broken) // 4, len(broken))] ^= 1 << generator.integers(8)
            path.write_bytes(broken)
            try:
                silent += not np.array_equal(load(path), same)
            except (DataError, OSError, RuntimeError, EOFError, ValueError, zlib.error):
                continue
    return f"{silent} of {FLIPS}"


def readers() -> Iterator[tuple[str, Row]]:
    values = np.random.default_rng(1).integers(0, 4096, (64, 64, 64)).astype(np.int16)
    plain = nibabel.Nifti1Image(values, np.eye(4)).to_bytes()
    packed = gzip.compress(plain, mtime=0)
    what = "a bit flipped in a .nii.gz: other voxels returned without a word"
    mine = flips(packed, ".nii.gz", lambda p: read(p).data[0].numpy(), values)
    theirs = flips(packed, ".nii.gz", lambda p: np.asarray(nibabel.load(p).dataobj), values)
    yield "nibabel", (what, f"0 of {FLIPS}", mine, theirs)
    if importlib.util.find_spec("SimpleITK"):
        import SimpleITK

        def itk(path: Path) -> np.ndarray:
            return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).T

        SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
        yield "SimpleITK", (what, f"0 of {FLIPS}", mine, flips(packed, ".nii.gz", itk, values))
    if importlib.util.find_spec("tfrecord"):
        from tfrecord.reader import tfrecord_iterator

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.tfrecord"
            write_tfrecord([values.tobytes()], path)
            good, same = path.read_bytes(), np.frombuffer(values.tobytes(), np.uint8)
        what = "a bit flipped in a TFRecord: another record returned without a word"
        load = (
            lambda p: np.frombuffer(next(iter(read_tfrecord(p))), np.uint8),
            lambda p: np.frombuffer(bytes(next(tfrecord_iterator(str(p)))), np.uint8),
        )
        mine, theirs = (flips(good, ".tfrecord", each, same) for each in load)
        yield "tfrecord", (what, f"0 of {FLIPS}", mine, theirs)


PEERS: dict[str, tuple[str, Callable[[], Iterator[Row]]]] = {
    "MONAI": ("monai", monai_losses),
    "MONAI ": ("monai", monai_rest),
    "SMP": ("segmentation_models_pytorch", smp),
    "medicai": ("medicai", medicai),
}


def show(peer: str, row: Row) -> None:
    what, *values = row
    right, mine, theirs = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)
    print(f"{what:78} right {right:>12}   medkit {mine:>10}   {peer} {theirs}")
    note(what, right=right, medkit=mine, peer=peer, theirs=theirs)


def main() -> None:
    warnings.simplefilter("ignore")
    _torchvision_shim.install()
    for peer, (module, rows) in PEERS.items():
        if importlib.util.find_spec(module):
            for row in rows():
                show(peer.strip(), row)
        else:
            print(f"{module} is not installed")
    for peer, row in readers():
        show(peer, row)


if __name__ == "__main__":
    main()
