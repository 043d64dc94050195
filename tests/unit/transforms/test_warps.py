"""Spatial transforms beside SciPy, SimpleITK and MONAI, and what they must keep."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

import medkit.transforms as mt
from medkit.data import Volume
from medkit.ops import resample
from medkit.testing import assert_close

SURE = {"probability": 1.0}


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _places(warp: mt.Warp) -> np.ndarray:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in warp.size), indexing="ij"))
    places = np.einsum("ij,j...->i...", warp.matrix[:-1, :-1], index)
    return places + warp.matrix[:-1, -1].reshape(-1, *(1,) * len(warp.size))


@pytest.mark.parametrize("shape", [(9, 11, 13), (12, 17)])
@pytest.mark.parametrize(("mode", "order"), [("linear", 1), ("cubic", 3)])
def test_affine_equals_scipy(shape: tuple[int, ...], mode: str, order: int) -> None:
    image = torch.rand(2, *shape, dtype=torch.float64)
    transform = mt.RandomAffine(scale=(1.2, 1.4), rotation=20, shear=0.1, mode=mode, **SURE)

    applied = transform.apply({"image": image}, generator=_rng())

    places = _places(applied.warps[0])
    edge = "grid-constant" if order == 1 else "mirror"
    inside = np.ones(shape, dtype=bool)
    if order == 3:
        limit = np.array(shape).reshape(-1, *(1,) * len(shape)) - 1
        inside = ((places >= 0) & (places <= limit)).all(0)
    expected = np.stack([map_coordinates(c, places, order=order, mode=edge) for c in image.numpy()])
    assert inside.mean() > 0.4
    assert_close(applied.sample["image"][:, inside], torch.tensor(expected)[:, inside])


def test_elastic_equals_scipy_along_its_own_displacement() -> None:
    image = torch.rand(1, 14, 15, 16, dtype=torch.float64)

    applied = mt.RandomElastic(spacing=6, displacement=1, **SURE).apply(
        {"image": image}, generator=_rng()
    )

    (warp,) = applied.warps
    field = resample(warp.displacement[None].double(), size=warp.size, mode="cubic")[0].numpy()
    expected = map_coordinates(
        image[0].numpy(), _places(warp) + field, order=1, mode="grid-constant"
    )
    # the field is kept in float32
    assert_close(applied.sample["image"][0], torch.tensor(expected), atol=1e-5, rtol=0)


def test_nearest_labels_equal_scipy() -> None:
    label = torch.randint(0, 9, (1, 12, 13, 14))
    transform = mt.RandomAffine(scale=(1.2, 1.4), rotation=20, **SURE)

    applied = transform.apply({"image": label.float(), "label": label}, generator=_rng())

    places = _places(applied.warps[0])
    expected = map_coordinates(label[0].numpy(), places, order=0, mode="grid-constant")
    assert torch.equal(applied.sample["label"][0], torch.tensor(expected))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), points=st.integers(1, 5))
def test_landmarks_follow_in_simpleitk(seed: int, points: int) -> None:
    sitk = pytest.importorskip("SimpleITK")
    rng = _rng(seed)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0] * rng.uniform(0.5, 3, 3)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn, rng.uniform(-50, 50, 3)
    shape = tuple(int(n) for n in rng.integers(8, 14, 3))
    transform = mt.Compose(
        [
            mt.RandomFlip(),
            mt.RandomRotate90(axes=(0, 2)),
            mt.RandomAffine(translation=0.1, **SURE),
            mt.Spacing(spacing=(1.1, 2.3, 0.9)),
            mt.PadOrCrop(size=10),
        ]
    )
    sample = {"image": torch.rand(1, *shape), "affine": torch.tensor(affine)}

    applied = transform.apply(sample, generator=rng)

    new = np.asarray(applied.sample["affine"])
    grid = sitk.Image([int(n) for n in shape[::-1]], sitk.sitkFloat32)
    spacing = np.sqrt(np.square(turn).sum(0))
    lps = np.diag([-1.0, -1.0, 1.0])
    grid.SetSpacing(spacing[::-1].tolist())
    grid.SetDirection((lps @ (turn / spacing)[:, ::-1]).flatten().tolist())
    grid.SetOrigin((lps @ affine[:3, 3]).tolist())
    matrix = np.linalg.multi_dot([np.eye(4), *(warp.matrix for warp in applied.warps)])
    for landmark in rng.uniform(0, 9, (points, 3)):
        world = new[:3, :3] @ landmark + new[:3, 3]
        theirs = grid.TransformPhysicalPointToContinuousIndex((lps @ world).tolist())[::-1]
        ours = matrix[:3, :3] @ landmark + matrix[:3, 3]
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_flips_turns_and_crops_equal_monai() -> None:
    monai = pytest.importorskip("monai.transforms")
    image = torch.rand(2, 5, 6, 7)

    def ours(transform: mt.Transform) -> torch.Tensor:
        return transform({"image": image})["image"]

    assert torch.equal(ours(mt.Flip(axes=(0, 2))), monai.Flip((0, 2))(image).as_tensor())
    turned = monai.Rotate90(k=3, spatial_axes=(0, 2))(image).as_tensor()
    assert torch.equal(ours(mt.Rotate90(times=3, axes=(0, 2))), turned)
    fitted = monai.ResizeWithPadOrCrop((8, 4, 7))(image).as_tensor()
    assert torch.equal(ours(mt.PadOrCrop(size=(8, 4, 7))), fitted)
    padded = monai.DivisiblePad(4)(image).as_tensor()
    assert torch.equal(ours(mt.Pad(divisible=4)), padded)
    cropped = monai.CropForeground(lambda x: x > 0.9, margin=1, allow_smaller=True)(image)
    assert torch.equal(ours(mt.CropForeground(threshold=0.9, margin=1)), cropped.as_tensor())


def test_orientation_equals_monai_with_its_axes_the_other_way() -> None:
    monai = pytest.importorskip("monai.transforms")
    meta = pytest.importorskip("monai.data")
    volume = Volume(torch.rand(1, 4, 5, 6), np.diag([-2.0, 3.0, 1.5, 1.0]))

    theirs = monai.Orientation("RAS", labels=None)(volume.to_monai())
    sample = {"image": volume.data, "affine": torch.tensor(volume.affine)}
    ours = mt.Orientation(axcodes="SAR")(sample)

    assert isinstance(theirs, meta.MetaTensor)
    assert torch.equal(ours["image"].permute(0, 3, 2, 1), theirs.as_tensor())
    order = [2, 1, 0, 3]
    assert torch.equal(ours["affine"][:, order], theirs.affine)


def test_rotation_equals_monai() -> None:
    monai = pytest.importorskip("monai.transforms")
    image = torch.rand(1, 15, 15)

    ours = mt.Rotate(angle=20)({"image": image})["image"]

    rotate = monai.Rotate(math.radians(20), padding_mode="zeros", align_corners=False)
    assert_close(ours, rotate(image).as_tensor(), atol=1e-5, rtol=0)


def test_rotation_of_voxels_that_are_not_cubes_does_not_shear() -> None:
    affine = torch.diag(torch.tensor([1.0, 3.0, 1.0, 1.0]))
    sample = {"image": torch.rand(1, 5, 9, 27), "affine": affine}

    new = mt.Rotate(angle=30)(sample)["affine"]

    assert_close(new[:3, :3].T @ new[:3, :3], torch.diag(torch.tensor([1.0, 9.0, 1.0])).double())


def test_cropped_rotation_shows_nothing_from_outside() -> None:
    for shape in ((20, 31), (31, 20), (16, 16)):
        for angle in (5, 45, 89, -130):
            sample = {"image": torch.ones(1, *shape)}
            image = mt.Rotate(angle=angle, border="crop")(sample)["image"]
            assert float(image.min()) > 1 - 1e-4, (shape, angle)


def test_large_labels_survive_a_rotation() -> None:
    label = torch.full((1, 9, 9), 2**24 + 1)

    result = mt.Rotate(angle=10)({"image": label.float(), "label": label})["label"]

    assert sorted(result.unique().tolist()) == [0, 2**24 + 1]


def test_fused_spatial_transforms_interpolate_once() -> None:
    wave = torch.sin(torch.arange(40.0))[None].expand(40, 40)[None].contiguous()
    steps = [mt.Rotate(angle=30), mt.Rotate(angle=-30)]

    once = mt.Compose(steps).apply({"image": wave})
    twice = mt.Compose(steps, fused=False).apply({"image": wave})

    assert len(once.warps) == 1
    assert len(twice.warps) == 2
    assert_close(once.sample["image"], wave, atol=1e-4, rtol=0)
    assert float((twice.sample["image"] - wave)[:, 15:25, 15:25].abs().max()) > 0.01


def test_a_turn_after_a_crop_shows_what_lay_beside_it() -> None:
    sample = {"image": torch.ones(1, 30, 30)}
    steps = [mt.SpatialCrop(size=10), mt.Rotate(angle=45)]

    assert float(mt.Compose(steps)(sample)["image"].min()) > 0.99
    assert float(mt.Compose(steps, fused=False)(sample)["image"].min()) == 0


def test_moving_voxels_in_any_order_is_exact() -> None:
    image = torch.arange(2 * 5 * 6 * 7).reshape(2, 5, 6, 7)
    steps = [mt.Flip(axes=1), mt.Rotate90(axes=(0, 2)), mt.SpatialCrop(size=4, start=(1, 2, 0))]

    result = mt.Compose(steps)({"image": image})["image"]

    expected = image.flip(2).rot90(1, (1, 3))[:, 1:5, 2:6, 0:4]
    assert torch.equal(result, expected)


def test_predictions_go_back_to_the_file_exactly_where_voxels_were_moved() -> None:
    sample = {"image": torch.rand(1, 9, 10, 11), "affine": torch.eye(4)}
    steps = [mt.Orientation(axcodes="SPL"), mt.CropForeground(threshold=0.5), mt.Pad(divisible=8)]

    applied = mt.Compose(steps).apply(sample)
    back = applied.restore(applied.sample["image"], mode="nearest")

    assert torch.equal(back, sample["image"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mt.Resize(size=0)({"image": torch.zeros(1, 2)}), "size must be at least 1"),
        (lambda: mt.Flip(axes=3)({"image": torch.zeros(1, 2, 2)}), "spatial axes below 2"),
        (lambda: mt.Flip(axes=0)({}), r"sample\['image'\] must be a tensor"),
        (lambda: mt.Spacing(spacing=1)({"image": torch.zeros(1, 2, 2, 2)}), "4 x 4 matrix"),
        (lambda: mt.Orientation(axcodes="RAR"), "axcodes must be"),
        (lambda: mt.RandomFlip(probability=2), r"probability must be in \[0, 1\]"),
        (lambda: mt.RandomSpatialCrop(size=2, min_valid_ratio=0.5), "invalid_label must be given"),
        (lambda: mt.RandomAffine(scale=(2, 1)), "low <= high"),
        (lambda: mt.SpatialCrop(size=1, start=(0,), centre=(0,)), "one at a time"),
        (
            lambda: mt.Flip(axes=0)({"image": torch.zeros(1, 2), "label": torch.zeros(1, 3)}),
            r"sample\['label'\] must be \(channel, 2\) like the image",
        ),
    ],
)
def test_mistakes_are_named(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


POINTS = {
    "affine": mt.RandomAffine(shear=0.1, translation=0.1, **SURE),
    "elastic": mt.RandomElastic(spacing=8, displacement=1, **SURE),
    "moved": mt.Compose([mt.RandomFlip(), mt.RandomRotate90(**SURE), mt.RandomD4()]),
    "cropped": mt.Compose([mt.SpatialCrop(size=15), mt.PadOrCrop(size=20)]),
    "scaled": mt.Compose([mt.Orientation(axcodes="SPL"), mt.Spacing(spacing=(1.4, 0.8, 1.7))]),
    "all": mt.Compose(
        [
            mt.RandomRotate(angle=20, axes=(0, 1), **SURE),
            mt.Resize(size=(14, 25, 20)),
            mt.RandomElastic(spacing=8, displacement=1, **SURE),
            mt.RandomFlip(),
        ]
    ),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", POINTS)
def test_points_go_where_scipy_finds_them_in_the_image(name: str, seed: int) -> None:
    shape = (17, 18, 19)
    places = np.stack(np.meshgrid(*(np.arange(float(n)) for n in shape), indexing="ij"))
    affine = torch.diag(torch.tensor([1.5, 1.0, 0.9, 1.0], dtype=torch.float64))
    sample = {"image": torch.tensor(places), "affine": affine}

    applied = POINTS[name].apply(sample, generator=_rng(seed))

    landmarks = _rng(seed).uniform(4, 13, (30, 3))
    moved = applied.move_points(torch.tensor(landmarks))
    image = applied.sample["image"]
    assert isinstance(image, torch.Tensor)
    limit = np.array(image.shape[1:]) - 4  # away from what was filled
    inside = ((moved.numpy() > 3) & (moved.numpy() < limit)).all(1)
    shown = [map_coordinates(c, moved.numpy().T, order=1) for c in image.numpy()]
    gap = np.abs(np.stack(shown, axis=1) - landmarks)[inside]
    assert inside.sum() > 3
    assert gap.max() < 1e-5


@pytest.mark.usefixtures("unhooked")
def test_points_of_another_grid_are_refused() -> None:
    applied = mt.Flip(axes=0).apply({"image": torch.zeros(1, 4, 5)})

    for points in (torch.zeros(3, 3), torch.zeros(3, 2, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"points must be floats \(point, 2\)"):
            applied.move_points(points)


@pytest.mark.usefixtures("unhooked")
def test_a_function_is_no_transform() -> None:
    with pytest.raises(TypeError, match=r"transforms\[1\] must be a Transform \(a function goes"):
        mt.Compose([mt.Flip(axes=0), torch.sqrt])
