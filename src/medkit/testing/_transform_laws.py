"""Laws of transforms of samples."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from medkit.transforms import Applied, Transform

from ._contract import Law, NotApplicable, Violation

_SEEDS = range(4)
_SHAPE = (14, 17, 20)
_BORDER = 2  # voxels at the edge that interpolation may have mixed with what is outside
_HALF = 0.5 + 1e-3  # voxels between an interpolated place and the nearest voxel, with rounding
_EXACT = 1e-3  # voxels; places are interpolated in float32
_BENT = 0.1  # voxels; a bend is not linear between voxels

Call = Callable[..., Mapping[str, object]]


@dataclass(frozen=True)
class TransformSubject:
    """A transform, and what it is tried on."""

    transform: Call
    spatial_dims: int
    channels: int
    seeds: Sequence[int] = _SEEDS

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis of the sample."""
        return _SHAPE[: self.spatial_dims] if self.spatial_dims == 3 else _SHAPE[1:]

    def sample(self) -> dict[str, object]:
        """Return an image in [0, 1], a label with several classes, an affine and a name."""
        stream = torch.Generator().manual_seed(0)
        label = torch.randint(0, 4, (1, *self.shape), generator=stream)
        image = torch.rand(self.channels, *self.shape, generator=stream)
        return {"image": image, "label": label, "id": "a case", **self._place()}

    def places(self) -> dict[str, object]:
        """Return a sample whose image holds the index of each voxel, and its label their number."""
        axes = [torch.arange(float(n)) for n in self.shape]
        image = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        spare = image.new_zeros(max(0, self.channels - len(image)), *self.shape)
        image = torch.cat([image, spare])
        label = torch.arange(1, image[0].numel() + 1).reshape(1, *self.shape)
        return {"image": image, "label": label, "id": "places", **self._place()}

    def call(self, sample: Mapping[str, object], seed: int) -> Mapping[str, object]:
        """Return the changed sample."""
        return self.transform(sample, generator=np.random.default_rng(seed))

    def applied(self, sample: Mapping[str, object], seed: int) -> Applied:
        """Return the changed sample with its warps."""
        if not isinstance(self.transform, Transform):
            raise NotApplicable("is no medkit.transforms.Transform")
        return self.transform.apply(sample, generator=np.random.default_rng(seed))

    def _place(self) -> dict[str, object]:
        if self.spatial_dims != 3:
            return {}
        turn = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]
        affine = np.eye(4)
        affine[:3, :3] = turn * (2.5, 1.0, 0.8)
        affine[:3, 3] = (-30.0, 12.0, 50.0)
        return {"affine": torch.tensor(affine)}


def _input_is_unchanged(subject: TransformSubject) -> None:
    sample = subject.sample()
    before = {k: v.clone() if isinstance(v, Tensor) else v for k, v in sample.items()}
    for seed in subject.seeds:
        subject.call(sample, seed)
        for key, value in before.items():
            if key not in sample or not _same(value, sample[key]):
                raise Violation(f"{key!r} of the given sample was changed")


def _same_key_same_result(subject: TransformSubject) -> None:
    before = random.getstate(), torch.get_rng_state()
    for seed in subject.seeds:
        results: list[Mapping[str, object]] = []
        for start in (1, 2):
            random.seed(start)
            torch.default_generator.manual_seed(start)
            results.append(subject.call(subject.sample(), seed))
        random.setstate(before[0])
        torch.set_rng_state(before[1])
        first, again = results
        for key, value in first.items():
            if not _same(value, again[key]):
                raise Violation(f"{key!r} differs between two calls with generator {seed}")


def _global_state_is_left_alone(subject: TransformSubject) -> None:
    for seed in subject.seeds:
        before = _numpy_state(), torch.get_rng_state()
        subject.call(subject.sample(), seed)
        after = _numpy_state(), torch.get_rng_state()
        for name, old, new in zip(("NumPy", "torch"), before, after, strict=True):
            if not _same(old, new):
                raise Violation(f"draws from the global generator of {name}, not the one given")


def _entries_are_kept(subject: TransformSubject) -> None:
    sample = subject.sample()
    for seed in subject.seeds:
        result = subject.call(sample, seed)
        missing = sorted(set(sample) - set(result))
        if missing or result["id"] != sample["id"]:
            raise Violation(f"entries are lost or changed: {missing or ['id']}")


def _labels_are_not_invented(subject: TransformSubject) -> None:
    for seed in subject.seeds:
        sample = subject.sample()
        old, new = (_tensor(s, "label") for s in (sample, subject.call(sample, seed)))
        if new.dtype != old.dtype:
            raise Violation(f"labels become {new.dtype}, not {old.dtype}")
        made = new[~torch.isin(new, old)]
        if made.numel():
            raise Violation(f"{made.numel()} voxels have labels that were not there: {made[0]}")


def _image_and_label_stay_together(subject: TransformSubject) -> None:
    for result, inside in _moved(subject):
        image, label = _tensor(result, "image"), _tensor(result, "label")[0]
        number = (label - 1).clamp_min(0)
        for axis, size in reversed(list(enumerate(subject.shape))):
            gap = (image[axis] - number % size).abs()[inside]
            number = number // size
            if gap.numel() and float(gap.max()) > _HALF:
                raise Violation(f"a label lies {float(gap.max()):.3g} voxels beside its image")


def _world_coordinates_follow(subject: TransformSubject) -> None:
    if subject.spatial_dims != 3:
        raise NotApplicable("images have no affine")
    old = _tensor(subject.places(), "affine")
    for result, inside in _moved(subject, straight=True):
        image, new = _tensor(result, "image").double(), _tensor(result, "affine")
        axes = [torch.arange(n, dtype=torch.float64) for n in image.shape[1:]]
        index = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        matrix = torch.tensor(np.linalg.solve(old.numpy(), new.numpy()))
        place = torch.einsum("ij,j...->i...", matrix[:3, :3], index)
        place = place + matrix[:3, 3].reshape(3, 1, 1, 1)
        gap = (place - image[:3]).abs()[:, inside]
        if gap.numel() and float(gap.max()) > _EXACT:
            raise Violation(f"the affine is {float(gap.max()):.3g} voxels from where the image is")


def _changes_are_undone(subject: TransformSubject) -> None:
    moved = False
    sample = subject.places()
    old = _tensor(sample, "image")
    border = torch.ones_like(old[:1])
    for axis in range(1, border.ndim):
        border.narrow(axis, 0, _BORDER).zero_()
        border.narrow(axis, border.shape[axis] - _BORDER, _BORDER).zero_()
    for seed in subject.seeds:
        applied = subject.applied(sample, seed)
        if not applied.warps:
            continue
        moved = True
        known = border
        for warp in applied.warps:
            known = warp.move(known, mode="linear")
        sure = applied.restore(known, mode="linear")[0] > 1 - 1e-4
        back = applied.restore(_tensor(applied.sample, "image"), mode="linear")
        if back.shape != old.shape:
            raise Violation(f"restores {tuple(back.shape)}, not {tuple(old.shape)}")
        gap = (back - old).abs()[:, sure]
        limit = _EXACT if all(warp.displacement is None for warp in applied.warps) else _BENT
        if gap.numel() and float(gap.max()) > limit:
            raise Violation(f"restored voxels lie {float(gap.max()):.3g} voxels beside their place")
    if not moved:
        raise NotApplicable("changes no grid")


LAWS = (
    Law("input_is_unchanged", "A call leaves the given sample as it is.", _input_is_unchanged),
    Law(
        "same_key_same_result",
        "Equal generators give equal results, bit for bit.",
        _same_key_same_result,
    ),
    Law(
        "global_state_is_left_alone",
        "A transform draws from the generator it is given and from nothing else.",
        _global_state_is_left_alone,
    ),
    Law("entries_are_kept", "Every entry of a sample is in the result.", _entries_are_kept),
    Law(
        "labels_are_not_invented",
        "Labels keep their type, and only values of the input appear.",
        _labels_are_not_invented,
    ),
    Law(
        "image_and_label_stay_together",
        "A label comes from within half a voxel of the place that the image shows.",
        _image_and_label_stay_together,
    ),
    Law(
        "world_coordinates_follow",
        "The affine says where in the body each new voxel is, to 1e-3 voxel.",
        _world_coordinates_follow,
    ),
    Law(
        "changes_are_undone",
        "What ``Applied.restore`` brings back lies where it was, to 1e-3 voxel.",
        _changes_are_undone,
    ),
)


def _moved(
    subject: TransformSubject, *, straight: bool = False
) -> list[tuple[Mapping[str, object], Tensor]]:
    """Return results with another grid, and which voxels of each come from well inside."""
    found: list[tuple[Mapping[str, object], Tensor]] = []
    sample = subject.places()
    for seed in subject.seeds:
        result = subject.call(sample, seed)
        if _same(result["label"], sample["label"]):
            continue
        if straight and isinstance(subject.transform, Transform):
            warps = subject.applied(sample, seed).warps
            if any(warp.displacement is not None for warp in warps):
                continue
        label = _tensor(result, "label")[0]
        number, inside = label - 1, label > 0
        for size in reversed(subject.shape):
            index = number % size
            inside = inside & (index >= _BORDER) & (index < size - _BORDER)
            number = number // size
        found.append((result, inside))
    if not found:
        raise NotApplicable("changes no grid")
    return found


def _tensor(sample: Mapping[str, object], key: str) -> Tensor:
    value = sample.get(key)
    if not isinstance(value, Tensor):
        raise Violation(f"{key!r} is {type(value).__name__}, not a tensor")
    return value


def _same(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return first == second


def _numpy_state() -> Tensor:
    state = cast("tuple[str, np.ndarray, int, int, float]", np.random.get_state())  # noqa: NPY002
    return torch.tensor([*state[1].astype(np.int64), state[2]])
