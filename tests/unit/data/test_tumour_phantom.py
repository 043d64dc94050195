"""The synthetic tumour: the same from the same seed, nested, and hard in the ways it says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medkit.data import VolumeDataset, tumour_phantom
from medkit.ops import binary_dilation, box_element


def test_same_seed_same_head_and_another_seed_another() -> None:
    one, again, other = (tumour_phantom(size=24, seed=seed) for seed in (3, 3, 4))

    assert torch.equal(one.image.data, again.image.data)
    assert torch.equal(one.label.data, again.label.data)
    assert (one.image.data != other.image.data).float().mean() > 0.3


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.tuples(*[st.integers(24, 33)] * 3))
def test_parts_are_nested_inside_the_head(seed: int, size: tuple[int, int, int]) -> None:
    case = tumour_phantom(size=size, seed=seed)
    label, image = case.label.data, case.image.data

    assert image.shape == (4, *size)
    assert image.dtype == torch.int16
    assert image.min() == 0
    assert label.unique().tolist() == [0, 1, 2, 4]
    assert (image[:, 0, 0, 0] == 0).all()  # the corner lies outside
    assert (label[_around(label == 1)] > 0).float().mean() > 0.9
    assert ((label == 1) | (label == 4)).sum() < (label == 2).sum()


@pytest.mark.parametrize("seed", range(3))
def test_the_rim_is_about_the_core_and_oedema_about_both(seed: int) -> None:
    label = tumour_phantom(size=48, seed=seed).label.data

    assert (label[_around(label == 1)] == 4).float().mean() > 0.8
    assert (label[_around((label == 1) | (label == 4))] == 2).float().mean() > 0.8


def _around(mask: Tensor) -> Tensor:
    """Return the voxels that touch a mask and are not in it."""
    return binary_dilation(mask[None], element=box_element(3))[0] & ~mask


def test_sequences_show_what_they_should() -> None:
    case = tumour_phantom(size=48, seed=0)
    image, label = case.image.data.float(), case.label.data[0]
    t1, t1ce, t2, flair = image
    inside = flair > 0

    healthy = inside & (label == 0)
    assert t1ce[label == 4].mean() > 1.2 * t1ce[label == 1].mean()
    assert flair[label == 2].mean() > 1.2 * flair[healthy].mean()
    assert t2[label == 1].mean() > t2[label == 4].mean()
    assert t1[label == 2].mean() < t1[healthy].mean()
    # no threshold of a single sequence is enough: Dice of the best one for the whole tumour
    best = 0.0
    for level in torch.linspace(0, 1000, 60):
        found = (flair > level) & inside
        best = max(best, float(2 * (found & (label > 0)).sum() / (found.sum() + (label > 0).sum())))
    assert best < 0.7


def test_a_dataset_takes_it() -> None:
    case = tumour_phantom(size=24, seed=2)

    item = VolumeDataset([{"image": case.image, "label": case.label, "id": case.id}])[0]

    assert item["image"].shape == (4, 24, 24, 24)
    assert item["id"] == "phantom 2"


def test_a_side_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="size must be at least 24; got 23"):
        tumour_phantom(size=(24, 24, 23))
