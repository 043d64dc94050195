"""Every public transform is held to the laws of transforms; one without a case fails a test."""

import inspect

import pytest
import torch

import medkit.transforms as mt
from medkit.testing import check_transform, transform_laws, transform_report
from medkit.transforms import Transform

SURE = {"probability": 1.0}
CASES: dict[str, list[Transform]] = {
    "Apply": [mt.Apply(torch.sqrt)],
    "Compose": [
        mt.Compose([mt.RandomFlip(), mt.RandomRotate(angle=20, **SURE), mt.RandomFlip()]),
        mt.Compose([mt.Orientation(axcodes="SPL"), mt.Spacing(spacing=1.5)]),
        mt.Compose([mt.SpatialCrop(size=12), mt.RandomAffine(**SURE), mt.Resize(size=11)]),
        mt.Compose([mt.RandomElastic(spacing=8, displacement=1, **SURE), mt.Rotate90()]),
    ],
    "CropForeground": [mt.CropForeground(threshold=10, margin=1, divisible=2)],
    "Flip": [mt.Flip(axes=(0, -1))],
    "NormalizeIntensity": [mt.NormalizeIntensity()],
    "NormalizePercentiles": [mt.NormalizePercentiles()],
    "OneOf": [mt.OneOf([mt.Flip(axes=0), mt.Rotate90(), mt.Rotate(angle=10)])],
    "Orientation": [mt.Orientation(axcodes="SPL")],
    "Pad": [mt.Pad(size=18, divisible=4)],
    "PadOrCrop": [mt.PadOrCrop(size=(10, 30, 20))],
    "RandomAffine": [mt.RandomAffine(shear=0.1, translation=0.1, **SURE)],
    "RandomApply": [mt.RandomApply(mt.Rotate90(), **SURE)],
    "RandomBiasField": [mt.RandomBiasField(**SURE)],
    "RandomBrightness": [mt.RandomBrightness(**SURE)],
    "RandomContrast": [mt.RandomContrast(**SURE)],
    "RandomCutOut": [
        mt.RandomCutOut(size=5, num_cuts=2, invalid_label=2, **SURE),
        mt.RandomCutOut(size=5, through="slice", fill="noise", **SURE),
    ],
    "RandomD4": [mt.RandomD4()],
    "RandomElastic": [mt.RandomElastic(spacing=8, displacement=1, **SURE)],
    "RandomFlip": [mt.RandomFlip()],
    "RandomGamma": [mt.RandomGamma(**SURE), mt.RandomGamma(inverted=True, **SURE)],
    "RandomGaussianBlur": [mt.RandomGaussianBlur(**SURE)],
    "RandomGaussianNoise": [mt.RandomGaussianNoise(**SURE)],
    "RandomLowResolution": [mt.RandomLowResolution(**SURE)],
    "RandomRotate": [
        mt.RandomRotate(angle=25, axes=(0, 2), **SURE),
        mt.RandomRotate(angle=25, border="crop", **SURE),
    ],
    "RandomRotate90": [mt.RandomRotate90(axes=(0, 1), **SURE)],
    "RandomShiftIntensity": [mt.RandomShiftIntensity(offset=0.1, **SURE)],
    "RandomForegroundCrop": [
        mt.RandomForegroundCrop(size=9),
        mt.RandomForegroundCrop(size=9, probability=1.0, classes=(2,), ignore_index=1),
    ],
    "RandomSpatialCrop": [
        mt.RandomSpatialCrop(size=12, least_size=5),
        mt.RandomSpatialCrop(size=9),
        mt.RandomSpatialCrop(size=9, invalid_label=2, min_valid_ratio=0.5),
    ],
    "ReplaceNonFinite": [mt.ReplaceNonFinite()],
    "Resize": [mt.Resize(size=(20, 11, 13))],
    "Rotate": [mt.Rotate(angle=20), mt.Rotate(angle=-70, border="crop", axes=(0, 1))],
    "Rotate90": [mt.Rotate90(times=3, axes=(2, 0))],
    "ScaleIntensityRange": [mt.ScaleIntensityRange(input_range=(0.2, 0.8))],
    "ShiftIntensity": [mt.ShiftIntensity(offset=0.1)],
    "Spacing": [mt.Spacing(spacing=(1.3, 1.9, 1.0))],
    "SpatialCrop": [mt.SpatialCrop(size=(9, 50, 8), start=(2, 0, 20))],
    "WindowIntensity": [mt.WindowIntensity(centre=0.5, width=0.5)],
}
IN_2D: dict[str, list[Transform]] = {
    "EqualizeContrast": [mt.EqualizeContrast(tiles=2)],
    "NormalizeColours": [mt.NormalizeColours()],
    "NormalizeStains": [mt.NormalizeStains()],
    "RandomStainJitter": [mt.RandomStainJitter(**SURE)],
}
OPEN = ("Transform",)
TRANSFORMS = {
    name
    for name in mt.__all__
    if inspect.isclass(getattr(mt, name)) and issubclass(getattr(mt, name), Transform)
} - set(OPEN)


def test_every_transform_has_a_case() -> None:
    assert {*CASES, *IN_2D} == TRANSFORMS


@pytest.mark.parametrize("name", CASES)
def test_transform_obeys_every_law_in_3d(name: str) -> None:
    for transform in CASES[name]:
        check_transform(transform)


@pytest.mark.parametrize(
    "transform",
    [
        mt.RandomAffine(shear=0.1, **SURE),
        mt.RandomElastic(spacing=6, displacement=1, **SURE),
        mt.RandomRotate(angle=40, border="crop", **SURE),
        mt.RandomD4(),
        mt.RandomSpatialCrop(size=9),
        mt.Resize(size=(9, 30)),
        mt.RandomGaussianBlur(**SURE),
        mt.RandomLowResolution(**SURE),
        mt.RandomBiasField(**SURE),
        mt.RandomCutOut(size=4, **SURE),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_transform_obeys_every_law_in_2d(transform: Transform) -> None:
    check_transform(transform, spatial_dims=2)


@pytest.mark.parametrize("name", sorted(IN_2D))
def test_transform_of_colours_obeys_every_law(name: str) -> None:
    for transform in IN_2D[name]:
        check_transform(transform, spatial_dims=2, channels=3)


def _in_place(sample, generator):
    sample["image"].mul_(2)
    return dict(sample)


def _global(sample, generator):
    return {**sample, "image": sample["image"] + torch.rand(())}


def _loses(sample, generator):
    return {key: sample[key] for key in ("image", "label", "id")} if len(sample) < 3 else {"id": ""}


def _linear_label(sample, generator):
    label = sample["label"].float()
    return {**sample, "label": (label + label.roll(1, -1)).div(2).to(sample["label"].dtype) + 9}


def _image_alone(sample, generator):
    return {**sample, "image": sample["image"].roll(1, -1), "label": sample["label"].flip(-1)}


def _forgets_the_affine(sample, generator):
    return {**sample, "image": sample["image"].flip(-1), "label": sample["label"].flip(-1)}


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (_in_place, "input_is_unchanged"),
        (_global, "same_key_same_result"),
        (_global, "global_state_is_left_alone"),
        (_loses, "entries_are_kept"),
        (_linear_label, "labels_are_not_invented"),
        (_image_alone, "image_and_label_stay_together"),
        (_forgets_the_affine, "world_coordinates_follow"),
    ],
)
def test_law_finds_a_transform_that_breaks_it(broken, law: str) -> None:
    assert law in transform_report(broken).violations


def test_law_finds_warps_that_lead_elsewhere() -> None:
    class Wrong(mt.Flip):
        def _apply(self, sample, generator):
            applied = super()._apply(sample, generator)
            return mt.Applied(applied.sample, mt.Flip(axes=1).apply(sample).warps)

    assert "changes_are_undone" in transform_report(Wrong(axes=0)).violations


def test_laws_are_sentences() -> None:
    assert all(sentence.endswith(".") for sentence in transform_laws().values())
