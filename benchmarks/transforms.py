"""nnU-Net's augmentation of volumes beside batchgeneratorsv2, MONAI and TorchIO.

    python benchmarks/transforms.py

One patch with a label, each library in turn in this one process, after a warm-up. The first table
makes every change for certain; the second draws them with nnU-Net's probabilities and gives the
mean time of a patch, which for few patches depends on luck; the last line of the first adds up the
medians times the shares of the changes and does not. batchgeneratorsv2 is measured where it is
installed; TorchIO has no change of contrast and no inverted gamma, so it does two things less.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib import import_module, util

import numpy as np
import torch

import medkit.transforms as mt
from _record import record

Run = Callable[[], object]
WARMING = 1
SHARES = {
    "rotate and scale": 0.36,
    "noise": 0.1,
    "blur": 0.1,
    "brightness": 0.15,
    "contrast": 0.15,
    "low resolution": 0.125,
    "inverted gamma": 0.1,
    "gamma": 0.3,
    "mirror": 1.0,
}
"""Of patches of one channel that nnU-Net makes each change of."""


def volume(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a smooth image with noise, and a label of two structures."""
    torch.manual_seed(0)
    axis = torch.linspace(-1, 1, size)
    d, h, w = torch.meshgrid(axis, axis, axis, indexing="ij")
    image = torch.exp(-3 * (d**2 + h**2 + w**2)) + 0.1 * torch.randn(size, size, size)
    return image[None], ((image > 0.3).to(torch.int16) + (image > 0.7))[None].to(torch.int16)


def medkit_steps(sure: bool) -> dict[str, mt.Transform]:
    """Return the changes; the same in every library."""

    def p(probability: float) -> float:
        return 1.0 if sure else probability

    share = {"channel_probability": p(0.5)}
    return {
        "rotate and scale": mt.RandomAffine(probability=p(0.2)),
        "noise": mt.RandomGaussianNoise(probability=p(0.1)),
        "blur": mt.RandomGaussianBlur(probability=p(0.2), **share),
        "brightness": mt.RandomBrightness(probability=p(0.15)),
        "contrast": mt.RandomContrast(probability=p(0.15)),
        "low resolution": mt.RandomLowResolution(probability=p(0.25), **share),
        "inverted gamma": mt.RandomGamma(probability=p(0.1), inverted=True),
        "gamma": mt.RandomGamma(probability=p(0.3)),
        "mirror": mt.RandomFlip(probability=p(0.5)),
    }


def batchgenerators_steps(sure: bool, size: int) -> dict[str, Callable[..., object]]:
    """Return what nnU-Net 2.8 builds for volumes."""
    root = "batchgeneratorsv2.transforms."

    def made(path: str, name: str, *args: object, **options: object) -> Callable[..., object]:
        return getattr(import_module(root + path), name)(*args, **options)

    def random(probability: float, transform: object) -> Callable[..., object]:
        wrap = import_module(root + "utils.random").RandomTransform
        return wrap(transform, 1.0 if sure else probability)

    few = 1.0 if sure else 0.5
    p = 1.0 if sure else 0.2
    angle = (-np.pi / 6, np.pi / 6)
    spatial = made(
        "spatial.spatial", "SpatialTransform", (size,) * 3, 0, False, p_elastic_deform=0,
        p_rotation=p, rotation=angle, p_scaling=p, scaling=(0.7, 1.4),
        p_synchronize_scaling_across_axes=1, bg_style_seg_sampling=False,
    )  # fmt: skip
    gamma = "intensity.gamma"
    return {
        "rotate and scale": spatial,
        "noise": random(0.1, made("intensity.gaussian_noise", "GaussianNoiseTransform",
            noise_variance=(0, 0.1), p_per_channel=1, synchronize_channels=True)),
        "blur": random(0.2, made("noise.gaussian_blur", "GaussianBlurTransform",
            blur_sigma=(0.5, 1.0), synchronize_channels=False, synchronize_axes=False,
            p_per_channel=few, benchmark=True)),
        "brightness": random(0.15, made("intensity.brightness",
            "MultiplicativeBrightnessTransform", multiplier_range=(0.75, 1.25),
            synchronize_channels=False, p_per_channel=1)),
        "contrast": random(0.15, made("intensity.contrast", "ContrastTransform",
            contrast_range=(0.75, 1.25), preserve_range=True, synchronize_channels=False,
            p_per_channel=1)),
        "low resolution": random(0.25, made("spatial.low_resolution",
            "SimulateLowResolutionTransform", scale=(0.5, 1), synchronize_channels=False,
            synchronize_axes=True, ignore_axes=None, allowed_channels=None, p_per_channel=few)),
        "inverted gamma": random(0.1, made(gamma, "GammaTransform", gamma=(0.7, 1.5),
            p_invert_image=1, synchronize_channels=False, p_per_channel=1, p_retain_stats=1)),
        "gamma": random(0.3, made(gamma, "GammaTransform", gamma=(0.7, 1.5), p_invert_image=0,
            synchronize_channels=False, p_per_channel=1, p_retain_stats=1)),
        "mirror": made("spatial.mirroring", "MirrorTransform", (0, 1, 2)),
    }  # fmt: skip


def monai_steps(sure: bool) -> dict[str, Callable[..., object]]:
    """Return the transforms of MONAI that do the same."""
    m = import_module("monai.transforms")

    def p(probability: float) -> float:
        return 1.0 if sure else probability

    both, angle = ["image", "label"], np.pi / 6
    spread = {f"sigma_{axis}": (0.5, 1.0) for axis in "xyz"}
    power = {"gamma": (0.7, 1.5), "retain_stats": True}
    flips = [m.RandFlipd(both, prob=p(0.5), spatial_axis=axis) for axis in range(3)]
    return {
        # rotation or scale, or both: 1 - 0.8 * 0.8
        "rotate and scale": m.RandAffined(
            both, prob=p(0.36), rotate_range=(angle,) * 3, scale_range=(0.3, 0.4),
            mode=("bilinear", "nearest"), padding_mode="zeros",
        ),
        "noise": m.RandGaussianNoised("image", prob=p(0.1), std=0.3),
        "blur": m.RandGaussianSmoothd("image", prob=p(0.1), **spread),
        "brightness": m.RandScaleIntensityd("image", 0.25, prob=p(0.15)),
        "contrast": m.RandScaleIntensityFixedMeand(
            "image", factors=0.25, preserve_range=True, prob=p(0.15)
        ),
        "low resolution": m.RandSimulateLowResolutiond(
            "image", prob=p(0.125), zoom_range=(0.5, 1), upsample_mode="trilinear"
        ),
        "inverted gamma": m.RandAdjustContrastd("image", prob=p(0.1), invert_image=True, **power),
        "gamma": m.RandAdjustContrastd("image", prob=p(0.3), **power),
        "mirror": m.Compose(flips),
    }  # fmt: skip


def torchio_steps(sure: bool) -> dict[str, Callable[..., object]]:
    """Return the transforms of TorchIO that come closest."""
    t = import_module("torchio")

    def p(probability: float) -> float:
        return 1.0 if sure else probability

    return {
        "rotate and scale": t.RandomAffine(
            scales=(0.7, 1.4), degrees=30, isotropic=True, p=p(0.36)
        ),
        "noise": t.RandomNoise(std=(0, 0.3), p=p(0.1)),
        "blur": t.RandomBlur(std=(0.5, 1), p=p(0.1)),
        "brightness": t.Lambda(lambda x: x * 1.1, types_to_apply=[t.INTENSITY], p=p(0.15)),
        "low resolution": t.RandomAnisotropy(axes=(0, 1, 2), downsampling=(1, 2), p=p(0.125)),
        "gamma": t.RandomGamma(log_gamma=(-0.36, 0.4), p=p(0.4)),
        "mirror": t.RandomFlip(axes=(0, 1, 2), flip_probability=p(0.5)),
    }  # fmt: skip


def libraries(size: int, sure: bool) -> dict[str, tuple[dict[str, Callable[..., object]], Run]]:
    """Return each library's steps, and a function that makes a fresh sample for it."""
    image, label = volume(size)
    pair = {"image": image, "label": label}
    found: dict[str, tuple[dict[str, Callable[..., object]], Run]] = {
        "medkit": (dict(medkit_steps(sure)), lambda: dict(pair))
    }
    if util.find_spec("batchgeneratorsv2"):
        made = {
            name: (lambda sample, step=step: step(**sample))
            for name, step in batchgenerators_steps(sure, size).items()
        }
        found["batchgeneratorsv2"] = (
            made,
            lambda: {"image": image.clone(), "segmentation": label.clone()},
        )
    found["MONAI"] = (monai_steps(sure), lambda: dict(pair))
    t = import_module("torchio")
    found["TorchIO"] = (
        torchio_steps(sure),
        lambda: t.Subject(image=t.ScalarImage(tensor=image), label=t.LabelMap(tensor=label)),
    )
    return found


def clock(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def chain(steps: dict[str, Callable[..., object]], sample: object) -> object:
    for step in steps.values():
        sample = step(sample)
    return sample


def certain(size: int, repeats: int) -> None:
    """Print the median time of each change, and what they add up to."""
    found = libraries(size, sure=True)
    print(f"every change for certain, {size}^3, milliseconds; in brackets times medkit's")
    print(f"  {'':18}" + "".join(f"{name:>22}" for name in found))
    expected = dict.fromkeys(found, 0.0)
    for change, share in SHARES.items():
        row, middles = f"  {change:18}", dict[str, float]()
        for name, (steps, fresh) in found.items():
            if change not in steps:
                row += f"{'-':>22}"
                continue
            times = [clock(lambda: steps[change](fresh())) for _ in range(repeats + WARMING)]  # noqa: B023
            middle = 1000 * statistics.median(times[WARMING:])
            middles[name] = middle
            expected[name] += share * middle
            row += f"{middle:14.1f} ({middle / middles['medkit']:4.1f})"
        print(row)
        record(f"{change}, {size}^3", "time", middles)
    record(f"a patch with nnU-Net's changes, {size}^3", "time", expected)
    ours = expected["medkit"]
    row = "".join(f"{total:14.1f} ({total / ours:4.1f})" for total in expected.values())
    print(f"  {'a patch, expected':18}{row}")


def drawn(size: int, patches: int) -> None:
    """Print the mean time of a patch with nnU-Net's probabilities."""
    found = libraries(size, sure=False)
    ours = 0.0
    print(f"nnU-Net's probabilities, {patches} patches of {size}^3")
    for name, (steps, fresh) in found.items():
        np.random.seed(0)  # noqa: NPY002  what the peers draw from
        torch.manual_seed(0)
        if name == "medkit":
            whole = mt.Compose(list(medkit_steps(sure=False).values()))
            run = lambda: whole(fresh())  # noqa: B023, E731
        else:
            run = lambda: chain(steps, fresh())  # noqa: B023, E731
        run()
        mean = sum(clock(run) for _ in range(patches)) / patches
        ours = ours or mean
        print(f"  {name:18} {1000 * mean:8.1f} ms a patch, {mean / ours:5.2f} times medkit's")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--patches", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    import_module("SimpleITK").ProcessObject.SetGlobalDefaultNumberOfThreads(options.threads)
    certain(options.size, options.repeats)
    drawn(options.size, options.patches)


if __name__ == "__main__":
    main()
