"""Lists of regions count, measure and place what scikit-image finds; chains show their steps."""

from functools import partial

import numpy as np
import pytest
import torch

from medkit.inference import Chain, list_regions
from medkit.ops import (
    binary_closing,
    cylinder_element,
    hysteresis_threshold,
    remove_small_components,
)
from medkit.testing import assert_close


@pytest.mark.parametrize("dims", [2, 3])
def test_regions_are_those_of_scikit_image(dims: int) -> None:
    measure = pytest.importorskip("skimage.measure")
    labels = (torch.rand(2, 2, *(13, 8, 7)[:dims]) > 0.8).long() * torch.tensor([1, 4]).reshape(
        1, 2, *[1] * dims
    )
    scores = torch.rand(labels.shape)
    spacing = (3.0, 2.0, 0.5)[:dims]
    lists = list_regions(
        labels, connectivity=8 if dims == 2 else 26, spacing=spacing, scores=scores
    )

    for sample, regions in enumerate(lists):
        for channel, label in ((0, 1), (1, 4)):
            own = [r for r in regions if (r.channel, r.label) == (channel, label)]
            parts = measure.label(labels[sample, channel].numpy() > 0, connectivity=dims)
            theirs = measure.regionprops(parts, scores[sample, channel].double().numpy())
            theirs.sort(key=lambda r: -r.num_pixels)
            assert len(own) == len(theirs)
            assert len(own) > 1
            for a, b in zip(own, theirs, strict=True):
                assert a.voxels == b.num_pixels
                assert_close(a.volume, b.num_pixels * float(np.prod(spacing)))
                assert_close(np.array(a.centroid), np.array(b.centroid))
                assert (*a.start, *a.stop) == b.bbox
                assert_close(np.array(a.mean_score), np.array(b.intensity_mean))
                assert_close(np.array(a.max_score), np.array(b.intensity_max))


def test_a_sample_without_regions_has_an_empty_list() -> None:
    masks = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    masks[1, 0, 1:3, 2] = True

    empty, one = list_regions(masks, connectivity=4)

    assert empty == []
    assert one[0].voxels == 2
    assert one[0].mean_score is None
    with pytest.raises(ValueError, match="scores must be of shape"):
        list_regions(masks, connectivity=4, scores=torch.rand(2, 1, 3, 3))
    with pytest.raises(ValueError, match="spacing must be"):
        list_regions(masks, connectivity=4, spacing=(1, 1, 1))


def test_a_chain_is_its_steps_one_after_the_other() -> None:
    p = torch.rand(1, 1, 12, 12, 12)
    steps = {
        "threshold": partial(hysteresis_threshold, low=0.8, high=0.97, connectivity=26),
        "close": partial(binary_closing, element=cylinder_element(2, 3)),
        "no specks": partial(remove_small_components, connectivity=26, min_voxels=100),
    }
    chain = Chain(steps)
    by_hand = steps["no specks"](steps["close"](steps["threshold"](p)))

    assert torch.equal(chain(p), by_hand)
    assert [name for name, _ in chain.results(p)] == list(steps)
    assert torch.equal([x for _, x in chain.results(p)][-1], by_hand)
    assert repr(chain) == "Chain(threshold, close, no specks)"
    with pytest.raises(ValueError, match="steps must be at least one function"):
        Chain({})
