"""medicai's own results: labels exact, images to float32 rounding of values up to 255."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import medkit.transforms as mt
from medkit.testing import assert_close

FILE = Path(__file__).parents[2] / "golden" / "medicai_transforms" / "medicai_transforms.npz"
ROUNDING = 5e-4  # two parts in a million of 255: medicai interpolates in float32 by other sums
THEIR_ROUNDING = 2.1e-4  # what is left when medkit computes in float64: medicai's own
RADIAN = math.degrees(1)
AS_MEDICAI = {"profile": "medicai"}


@pytest.fixture(scope="module")
def arrays() -> dict[str, torch.Tensor]:
    with np.load(FILE) as file:
        return {
            name: torch.tensor(file[name] if "affine" in name else np.moveaxis(file[name], -1, 0))
            for name in file.files
        }


CASES = {
    "Resize/up": mt.Resize(size=(13, 20, 17), **AS_MEDICAI),
    "Resize/down": mt.Resize(size=(5, 9, 6), **AS_MEDICAI),
    "Flip/[0]": mt.Flip(axes=0),
    "Flip/[1]": mt.Flip(axes=1),
    "Flip/[2]": mt.Flip(axes=2),
    "Flip/[0, 2]": mt.Flip(axes=(0, 2)),
    "Rotate90/k1_01": mt.Rotate90(times=1, axes=(0, 1)),
    "Rotate90/k2_01": mt.Rotate90(times=2, axes=(0, 1)),
    "Rotate90/k3_01": mt.Rotate90(times=3, axes=(0, 1)),
    "Rotate90/k1_default": mt.Rotate90(),
    "CropForeground": mt.CropForeground(margin=1),
    "SpatialCrop/center": mt.SpatialCrop(size=6, centre=(2, 7, 9)),
    "Orientation/RAS": mt.Orientation(axcodes="SAR"),
    "Spacing/1mm": mt.Spacing(spacing=(1, 1.5, 2), **AS_MEDICAI),
    "Spacing/oblique": mt.Spacing(spacing=1.5, **AS_MEDICAI),
    "RandomRotate_crop/0.2": mt.Rotate(angle=0.2 * RADIAN, border="crop", **AS_MEDICAI),
    "RandomRotate_crop/-0.15": mt.Rotate(angle=-0.15 * RADIAN, border="crop", **AS_MEDICAI),
    "NormalizeIntensity/nzFalse": mt.NormalizeIntensity(),
    "NormalizeIntensity/nzTrue": mt.NormalizeIntensity(nonzero=True),
    "NormalizeIntensity/offset_scale": mt.NormalizeIntensity(offset=10, scale=4),
    "NormalizeIntensity/cw_nzFalse": mt.NormalizeIntensity(channel_wise=True),
    "NormalizeIntensity/cw_nzTrue": mt.NormalizeIntensity(channel_wise=True, nonzero=True),
    "ScaleIntensityRange/0_255": mt.ScaleIntensityRange(input_range=(0, 255)),
    "ScaleIntensityRange/clip_window": mt.ScaleIntensityRange(
        input_range=(50, 150), output_range=(-1, 1)
    ),
    "ScaleIntensityRange/noclip": mt.ScaleIntensityRange(input_range=(50, 150), clip=False),
    "ShiftIntensity": mt.ShiftIntensity(offset=0.1),
}


@pytest.mark.parametrize("name", CASES)
def test_transform_equals_medicai(arrays, name: str) -> None:
    image = "img2" if "/cw_" in name else "img"
    affine = "affine_oblique" if "oblique" in name else "affine"
    sample = {"image": arrays[image], "label": arrays["lab"], "affine": arrays[affine]}

    result = CASES[name](sample)

    assert_close(result["image"], arrays[f"{name}/image"], atol=ROUNDING, rtol=0)
    if f"{name}/label" in arrays:
        assert torch.equal(result["label"], arrays[f"{name}/label"])


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith(("Resize", "Spacing", "Ran"))])
def test_in_float64_only_the_rounding_of_medicai_is_left(arrays, name: str) -> None:
    affine = arrays["affine_oblique" if "oblique" in name else "affine"]
    sample = {"image": arrays["img"].double(), "label": arrays["lab"], "affine": affine}

    result = CASES[name](sample)["image"]

    assert result.dtype == torch.float64
    assert_close(result, arrays[f"{name}/image"].double(), atol=THEIR_ROUNDING, rtol=0)


@pytest.mark.parametrize("angle", [0.2, -0.15])
def test_rotation_equals_medicai(arrays, angle: float) -> None:
    rotate = mt.Rotate(angle=angle * RADIAN, **AS_MEDICAI)

    result = rotate({"image": arrays["img"], "label": arrays["lab"]})

    expected = arrays[f"rotate_volume/{angle}/bilinear"]
    assert_close(result["image"], expected, atol=ROUNDING, rtol=0)
    assert torch.equal(result["label"], arrays[f"rotate_volume/{angle}/nearest"])


def test_orientation_gives_the_affine_of_medicai(arrays) -> None:
    sample = {"image": arrays["img"], "affine": arrays["affine"]}

    affine = mt.Orientation(axcodes="SAR")(sample)["affine"]

    assert torch.equal(affine, arrays["Orientation/RAS/affine"].double())


def test_missing_numbers_are_replaced_as_medicai_does() -> None:
    image = torch.tensor([[float("nan"), float("inf"), -float("inf"), 2.0]])

    result = mt.ReplaceNonFinite()({"image": image})["image"]

    largest = torch.finfo(torch.float32).max
    assert result.tolist() == [[0.0, largest, -largest, 2.0]]
