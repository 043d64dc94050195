"""Laws of losses: what is ignored or masked is as if it had never been there."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ._comparison import expect, finite, same
from ._contract import NotApplicable, Violation
from ._loss_subject import LossSubject, loss_law
from ._options import Options

CLASS_COUNTS = (2, 4, 8)
ABSENT_LABELS = (255, -1)


@loss_law(needs=["ignore_index"])
def ignoring_nothing_changes_nothing(loss: LossSubject, options: Options) -> None:
    """An ``ignore_index`` that occurs nowhere changes nothing, for 2, 4 and 8 classes."""
    found: list[str] = []
    for classes in CLASS_COUNTS if loss.num_classes > 1 else (1,):
        logits, labels = loss.logits(num_classes=classes), loss.labels(num_classes=classes)
        plain = loss.run(options, logits, labels)
        try:
            for index in ABSENT_LABELS:
                ignoring = loss.run({**options, "ignore_index": index}, logits, labels)
                same(ignoring, plain, f"{classes} classes, ignore_index={index}")
        except Violation as violation:
            found.append(str(violation))
    expect(not found, "; ".join(found))


@loss_law(needs=["ignore_index"])
def ignoring_equals_cropping(loss: LossSubject, options: Options) -> None:
    """Ignored voxels count as little as voxels that are cropped away."""
    _scalar_only(options)
    indices = (*ABSENT_LABELS, loss.num_classes - 1) if loss.num_classes > 1 else ABSENT_LABELS
    for index in indices:
        logits, labels, kept = _slab(loss)
        labels = torch.where(labels == index, 0, labels)
        marked = torch.where(kept, labels, index)
        chosen: Options = {**options, "ignore_index": index}
        half = loss.spatial_shape[0] // 2
        whole = loss.score(chosen, logits, marked)
        cropped = loss.score(chosen, logits[:, :, :half], labels[:, :half])
        same(whole.value, cropped.value, f"voxels of ignore_index={index} against cropping them")
        same(whole.gradient[:, :, :half], cropped.gradient, "gradient of the voxels that stay")


@loss_law(needs=["mask"])
def masking_equals_cropping(loss: LossSubject, options: Options) -> None:
    """Masked voxels count as little as voxels that are cropped away."""
    _scalar_only(options)
    logits, labels, kept = _slab(loss)
    half = loss.spatial_shape[0] // 2
    whole = loss.score(options, logits, labels, mask=kept[:, None])
    cropped = loss.score(options, logits[:, :, :half], labels[:, :half])
    same(whole.value, cropped.value, "masked voxels against cropping them")
    same(whole.gradient[:, :, :half], cropped.gradient, "gradient of the voxels that stay")


@loss_law(needs=["mask", "ignore_index"])
def masking_equals_ignoring(loss: LossSubject, options: Options) -> None:
    """A mask and the same voxels labelled ``ignore_index`` give one value and one gradient."""
    logits, labels, kept = _scattered(loss)
    masked = loss.score(options, logits, labels, mask=kept[:, None])
    marked = torch.where(kept, labels, 255)
    ignored = loss.score({**options, "ignore_index": 255}, logits, marked)
    same(masked.value, ignored.value, "mask against ignore_index")
    same(masked.gradient, ignored.gradient, "gradient, mask against ignore_index")


@loss_law(needs=["mask", "ignore_index"])
def mask_and_ignore_index_add_up(loss: LossSubject, options: Options) -> None:
    """With a mask and ``ignore_index``, a voxel counts only if both let it."""
    logits, labels, kept = _scattered(loss)
    other = _scattered(loss, seed=7).kept
    chosen: Options = {**options, "ignore_index": 255}
    both = loss.run(chosen, logits, torch.where(other, labels, 255), mask=kept[:, None])
    one = loss.run(options, logits, labels, mask=(kept & other)[:, None])
    same(both, one, "mask and ignore_index against one mask for both")


@loss_law(needs=["mask"])
def full_mask_changes_nothing(loss: LossSubject, options: Options) -> None:
    """A mask that keeps every voxel changes nothing."""
    logits, labels, kept = _scattered(loss)
    masked = loss.run(options, logits, labels, mask=torch.ones_like(kept)[:, None])
    same(masked, loss.run(options, logits, labels), "a mask that keeps every voxel")


@loss_law(needs=["mask"])
def channel_axis_of_the_mask_is_optional(loss: LossSubject, options: Options) -> None:
    """A mask is ``(B, *S)`` or ``(B, 1, *S)``."""
    logits, labels, kept = _scattered(loss)
    long = loss.run(options, logits, labels, mask=kept[:, None])
    same(loss.run(options, logits, labels, mask=kept), long, "mask of shape (B, *S)")


@loss_law()
def masked_voxels_have_no_influence(loss: LossSubject, options: Options) -> None:
    """Neither logits nor labels of ignored or masked voxels reach the value or the gradient."""
    for way in _ways(loss, options):
        before = loss.score(way.options, way.logits, way.labels, mask=way.mask)
        for size in (0.0, 1e4, -1e4):
            logits = torch.where(way.kept[:, None], way.logits, size)
            if loss.num_classes > 1:  # not the same for all classes, which softmax would cancel
                logits[:, 0] = torch.where(way.kept, way.logits[:, 0], 2.0)
            labels = way.relabelled()
            after = loss.score(way.options, logits, labels, mask=way.mask)
            same(after.value, before.value, f"{way.name}: logits {size:g} under it")
            _untouched(after.gradient, way)


@loss_law()
def nan_under_the_mask_has_no_influence(loss: LossSubject, options: Options) -> None:
    """NaN or infinite logits at ignored or masked voxels reach neither value nor gradient."""
    for way in _ways(loss, options):
        before = loss.run(way.options, way.logits, way.labels, mask=way.mask)
        for filler in (math.nan, math.inf):
            logits = torch.where(way.kept[:, None], way.logits, filler)
            after = loss.score(way.options, logits, way.labels, mask=way.mask)
            same(after.value, before, f"{way.name}: logits {filler} under it")
            _untouched(after.gradient, way)


@loss_law()
def wholly_ignored_sample_stays_finite(loss: LossSubject, options: Options) -> None:
    """A sample, or a batch, with every voxel ignored gives a finite value and no gradient."""
    for count, what in ((1, "one of two samples"), (2, "every sample")):
        for way in _ways(loss, options, ignored_samples=count):
            value, gradient = loss.score(way.options, way.logits, way.labels, mask=way.mask)
            finite(value, f"{way.name} over {what}: loss")
            finite(gradient, f"{way.name} over {what}: gradient")
            _untouched(gradient, way)


class _Way(NamedTuple):
    """One of the ways to leave voxels out: ``ignore_index`` or ``mask``."""

    name: str
    options: Options
    logits: Tensor
    labels: Tensor
    mask: Tensor | None
    kept: Tensor

    def relabelled(self) -> Tensor:
        """Return other labels where a mask hides them; an ignored voxel keeps its mark."""
        return self.labels if self.mask is None else torch.where(self.kept, self.labels, 1)


def _ways(loss: LossSubject, options: Options, *, ignored_samples: int = 0) -> Iterator[_Way]:
    logits, labels, kept = _scattered(loss)
    if ignored_samples:
        kept = torch.ones_like(kept)
        kept[:ignored_samples] = False
    if not loss.offers("ignore_index") and not loss.takes_mask:
        raise NotApplicable("needs ignore_index or mask, which this loss does not offer")
    if loss.offers("ignore_index"):
        chosen: Options = {**options, "ignore_index": 255}
        marked = torch.where(kept, labels, 255)
        yield _Way("ignore_index", chosen, logits, marked, None, kept)
    if loss.takes_mask:
        yield _Way("mask", options, logits, labels, kept[:, None], kept)


class _Scene(NamedTuple):
    logits: Tensor
    labels: Tensor
    kept: Tensor


def _scattered(loss: LossSubject, *, seed: int = 5) -> _Scene:
    labels = loss.labels()
    generator = torch.Generator().manual_seed(seed)
    return _Scene(loss.logits(), labels, torch.rand(labels.shape, generator=generator) < 0.7)


def _slab(loss: LossSubject) -> _Scene:
    """Return a scene of which the first half along the first spatial axis is kept."""
    labels = loss.labels()
    kept = torch.ones_like(labels, dtype=torch.bool)
    kept[:, loss.spatial_shape[0] // 2 :] = False
    return _Scene(loss.logits(), labels, kept)


def _scalar_only(options: Options) -> None:
    if options.get("reduction") == "none":
        raise NotApplicable("needs a reduction")


def _untouched(gradient: Tensor, way: _Way) -> None:
    under = torch.where(way.kept[:, None], 0.0, gradient)
    largest = under.abs().nan_to_num(math.inf).max().item()
    expect(largest == 0, f"{way.name}: gradient up to {largest:g} under it, where 0 is expected")


LAWS = (
    ignoring_nothing_changes_nothing,
    ignoring_equals_cropping,
    masking_equals_cropping,
    masking_equals_ignoring,
    mask_and_ignore_index_add_up,
    full_mask_changes_nothing,
    channel_axis_of_the_mask_is_optional,
    masked_voxels_have_no_influence,
    nan_under_the_mask_has_no_influence,
    wholly_ignored_sample_stays_finite,
)
