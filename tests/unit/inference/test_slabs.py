"""Slab by slab: the same prediction, bit for bit, in memory that does not grow with depth."""

import gc

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medkit.inference import (
    sliding_window_inference,
    sliding_window_segmentation,
    sliding_window_slabs,
)
from medkit.testing import assert_close
from unit.losses.refusals import refuses


def positional(windows: Tensor) -> Tensor:
    """Three scores that depend on the place inside the window, so that blending shows."""
    ramp = torch.linspace(-1, 1, windows.shape[2]).reshape(-1, *[1] * (windows.ndim - 3))
    return torch.cat([windows + ramp, windows * ramp, windows.roll(1, -1)], 1)


CASES = [
    ((1, 1, 40, 9, 10), (16, 8, 8), 0.5, 1),
    ((2, 1, 33, 47), (16, 8), (0.25, 0.7), 3),
    ((1, 1, 24, 20, 30), (24, 9, 16), (0.9, 0.1, 0.6), 4),
    ((2, 1, 10, 30, 7), (16, 12, 9), 0.3, 5),
    ((1, 1, 5, 9), (16, 16), 0.5, 1),
    ((1, 1, 31, 8), (6, 8), 0.8, 2),
    ((1, 1, 30, 8), (6, 8), 0.0, 2),
]


@pytest.mark.parametrize(("shape", "roi", "overlap", "batch_size"), CASES)
@pytest.mark.parametrize("importance", ["gaussian", "constant"])
def test_slabs_put_together_are_the_whole(
    shape: tuple[int, ...],
    roi: tuple[int, ...],
    overlap: float | tuple[float, ...],
    batch_size: int,
    importance: str,
) -> None:
    x = torch.randn(shape)
    options = {"roi_size": roi, "overlap": overlap, "importance": importance}
    whole = sliding_window_inference(x, positional, batch_size=batch_size, **options)
    slabs = list(sliding_window_slabs(x, positional, batch_size=batch_size, **options))

    assert torch.equal(torch.cat([slab.scores for slab in slabs], 2), whole)
    ends = [slab.start + slab.scores.shape[2] for slab in slabs]
    assert [slab.start for slab in slabs] == [0, *ends[:-1]]


def test_half_precision_is_summed_in_float32() -> None:
    x = torch.randn(1, 1, 20, 8).half()
    slabs = list(sliding_window_slabs(x, lambda windows: windows, roi_size=8))

    assert all(slab.scores.dtype == torch.float32 for slab in slabs)
    assert_close(torch.cat([slab.scores for slab in slabs], 2), x.float(), rtol=1e-6, atol=1e-6)


def test_labels_are_those_of_the_whole() -> None:
    x = torch.randn(2, 1, 40, 21, 17)
    whole = sliding_window_inference(x, positional, roi_size=16)

    labels = sliding_window_segmentation(x, positional, roi_size=16)

    assert labels.dtype == torch.uint8
    assert torch.equal(labels, whole.argmax(1).to(torch.uint8))


def surely_equal(labels: Tensor, scores: Tensor) -> bool:
    """Compare with the best class where it is best by more than rounding."""
    best = scores.topk(2, dim=1).values
    sure = best[:, 0] - best[:, 1] > 1e-5
    return torch.equal(labels[sure], scores.argmax(1)[sure].to(labels.dtype))


@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(1, 25), st.integers(1, 9), st.integers(1, 9)),
    target=st.tuples(st.integers(1, 50), st.integers(1, 12), st.integers(1, 12)),
    roi=st.integers(2, 8),
)
def test_labels_on_the_native_grid_are_those_of_the_resized_whole(
    size: tuple[int, ...], target: tuple[int, ...], roi: int
) -> None:
    x = torch.randn(1, 1, *size)
    whole = sliding_window_inference(x, positional, roi_size=roi)
    resized = F.interpolate(whole, size=target, mode="trilinear", align_corners=False)
    options = {"roi_size": roi, "output_size": target}

    labels = sliding_window_segmentation(x, positional, **options)
    scores = [
        sliding_window_segmentation(x, positional, reduce=lambda s, c=c: s[:, c], **options)
        for c in range(3)
    ]

    assert labels.shape == (1, *target)
    assert surely_equal(labels, resized)
    assert_close(torch.stack(scores, 1), resized, rtol=1e-5, atol=1e-5)  # both round in float32


def test_images_are_resized_too() -> None:
    x = torch.randn(2, 1, 30, 11)
    whole = sliding_window_inference(x, positional, roi_size=8)
    resized = F.interpolate(whole, size=(50, 20), mode="bilinear", align_corners=False)

    labels = sliding_window_segmentation(x, positional, roi_size=8, output_size=(50, 20))

    assert surely_equal(labels, resized)


def test_entropy_is_that_of_the_softmax() -> None:
    x = torch.randn(1, 1, 20, 9, 8)
    p = torch.softmax(sliding_window_inference(x, positional, roi_size=8).double(), 1)

    ours = sliding_window_segmentation(x, positional, roi_size=8, reduce="entropy")

    assert_close(ours, -(p * p.log()).sum(1).float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("classes", "dtype"), [(256, torch.uint8), (257, torch.int16)])
def test_labels_fit_their_type(classes: int, dtype: torch.dtype) -> None:
    def last(windows: Tensor) -> Tensor:
        scores = torch.zeros(len(windows), classes, *windows.shape[2:])
        scores[:, -1] = 1
        return scores

    labels = sliding_window_segmentation(torch.zeros(1, 1, 5, 4), last, roi_size=4)

    assert labels.dtype == dtype
    assert (labels.int() == classes - 1).all()


@pytest.mark.parametrize("output_size", [None, (60, 12, 12)])
def test_memory_does_not_grow_with_depth(output_size: tuple[int, ...] | None) -> None:
    def alive() -> int:
        tensors = (t for t in gc.get_objects() if type(t) is Tensor and t.dtype == torch.float32)
        storages = (t.untyped_storage() for t in tensors if t.layout == torch.strided)
        return sum({each.data_ptr(): each.nbytes() for each in storages}.values())

    def peak(depth: int) -> int:
        volume, living = torch.zeros(1, 1, depth, 8, 8), [0]

        def watched(windows: Tensor) -> Tensor:
            living.append(alive())
            return windows.expand(-1, 5, -1, -1, -1).clone()

        size = output_size and (2 * depth, *output_size[1:])
        outside = alive()
        sliding_window_segmentation(volume, watched, roi_size=8, output_size=size)
        return max(living) - outside

    assert peak(120) == peak(40)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_scores_are_reduced_between_two_planes_at_a_time(factor: int) -> None:
    """So that a fine grid of many classes takes memory of a few of its planes."""
    planes: list[int] = []

    def counted(scores: Tensor) -> Tensor:
        planes.append(scores.shape[2])
        return scores.argmax(1)

    size = tuple(factor * n for n in (40, 9, 8))
    sliding_window_segmentation(
        torch.rand(1, 1, 40, 9, 8), positional, roi_size=8, output_size=size, reduce=counted
    )

    assert sum(planes) == size[0]
    assert max(planes) <= 2 * factor


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    calls = []

    def counting(windows: Tensor) -> Tensor:
        calls.append(len(windows))
        return windows

    slabs = sliding_window_slabs(torch.zeros(1, 1, 32, 8), counting, roi_size=8)
    assert not calls
    next(slabs)
    assert len(calls) == 1


def test_bad_arguments_are_refused() -> None:
    x = torch.zeros(1, 1, 8, 8)

    with refuses("inputs"):
        sliding_window_slabs(x[0, 0], positional, roi_size=4)
    with pytest.raises(TypeError, match="predictor must return one tensor; got dict"):
        list(sliding_window_slabs(x, lambda w: {"out": w}, roi_size=4))
    with refuses("reduce"):
        sliding_window_segmentation(x, positional, roi_size=4, reduce="mean")
    with pytest.raises(ValueError, match=r"reduce must be a function to \(batch, planes"):
        sliding_window_segmentation(x, positional, roi_size=4, reduce=lambda s: s)
    with pytest.raises(ValueError, match="output_size must be one value or 2"):
        sliding_window_segmentation(x, positional, roi_size=4, output_size=(4, 4, 4))


def test_refuses_other_channels_than_before_and_no_size() -> None:
    volume = torch.ones(1, 1, 9, 9)
    channels = iter([2, 1])
    with pytest.raises(ValueError, match=r"same parts and channels for every window, {0: 2}"):
        sliding_window_segmentation(
            volume, lambda w: w.repeat(1, next(channels), 1, 1), roi_size=(9, 5)
        )
    for option in ("roi_size", "output_size"):
        options = {"roi_size": 4, "output_size": (9, 9)} | {option: (0, 9)}
        with pytest.raises(ValueError, match=f"^{option} must be at least 1; got 0"):
            sliding_window_segmentation(volume, lambda w: w, **options)
