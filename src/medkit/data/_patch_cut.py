"""A patch of a case as an item, and whether a case is large enough for one."""

from collections.abc import Sequence

import torch

from medkit._core import check
from medkit.ops import translate_affine

from ._any_case import AnyCase, patch_of
from ._dataset import Item


def cut(
    case: AnyCase,
    start: Sequence[int],
    size: Sequence[int],
    pad_value: float | None,
    pad_label: int | None,
) -> Item:
    """Return the patch that begins at a voxel, with the affine of the patch."""
    item = Item(
        image=patch_of(case.image, start, size, pad_value, torch.float32),
        affine=torch.tensor(translate_affine(case.image.affine, start)),
        id=case.id,
    )
    if case.label is not None:
        item["label"] = patch_of(case.label, start, size, pad_label, torch.int64)
    return item


def check_size(
    case: AnyCase, patch_size: Sequence[int], pad_value: float | None, pad_label: int | None
) -> None:
    """Refuse a case that is smaller than a patch, unless values to pad it with are given."""
    shape = case.image.spatial_shape
    if all(size >= patch for size, patch in zip(shape, patch_size, strict=True)):
        return
    needed = {"pad_value": pad_value}
    if case.label is not None:
        needed["pad_label"] = pad_label
    for name, value in needed.items():
        if value is None:
            rule = f"given, as {case.id!r} {shape} is smaller than the patch {tuple(patch_size)}"
            raise check.fail(name, rule, value)
