"""Laws of losses: the same scene, told in another way, has the same loss."""

import torch
from torch import Tensor

from ._comparison import same
from ._contract import NotApplicable
from ._loss_subject import LossSubject, loss_law
from ._options import Options

REPEATS = 8
COARSE = 5
"""Edge, in voxels, of the scene that `resolution_changes_nothing` magnifies."""


@loss_law()
def one_hot_equals_class_map(loss: LossSubject, options: Options) -> None:
    """A class map and its one-hot channels, of any dtype, give one value and one gradient."""
    logits, labels = loss.logits(), loss.labels()
    expected = loss.score(options, logits, labels)
    for dtype in (torch.float64, torch.int64, torch.bool):
        one_hot = loss.one_hot(labels).to(dtype)
        scored = loss.score(options, logits, one_hot)
        same(scored.value, expected.value, f"one-hot target of {dtype} against the class map")
        same(scored.gradient, expected.gradient, f"gradient, one-hot target of {dtype}")


@loss_law()
def channel_axis_of_the_class_map_is_optional(loss: LossSubject, options: Options) -> None:
    """A class map is ``(B, *S)`` or ``(B, 1, *S)``."""
    logits, labels = loss.logits(), loss.labels()
    short = loss.run(options, logits, labels)
    same(loss.run(options, logits, labels[:, None]), short, "class map of shape (B, 1, *S)")


@loss_law()
def dtype_of_the_class_map_changes_nothing(loss: LossSubject, options: Options) -> None:
    """A class map may hold integers of any size."""
    logits, labels = loss.logits(), loss.labels()
    expected = loss.run(options, logits, labels)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        same(loss.run(options, logits, labels.to(dtype)), expected, f"class map of {dtype}")


@loss_law(fixes=["class_weight"])
def order_of_classes_changes_nothing(loss: LossSubject, options: Options) -> None:
    """Exchanging channels and labels alike changes nothing."""
    if loss.num_classes == 1:
        raise NotApplicable("needs more than one class")
    background = options.get("include_background", True)
    first = 0 if background else 1
    order = [*range(first), *range(loss.num_classes - 1, first - 1, -1)]
    logits, labels = loss.logits(), loss.labels()
    labels = torch.where(labels == 1, 0, labels)  # classes of unequal sizes
    labels[:, 0] = 1
    exchanged = _total(loss.run(options, logits[:, order], torch.tensor(order).argsort()[labels]))
    same(exchanged, _total(loss.run(options, logits, labels)), f"classes in order {order}")


@loss_law()
def order_of_samples_changes_nothing(loss: LossSubject, options: Options) -> None:
    """Exchanging the samples of a batch changes nothing."""
    logits, labels = loss.logits(samples=3), loss.labels(samples=3)
    labels[0, 0] = 0  # samples of unequal content
    exchanged = _total(loss.run(options, logits.roll(1, 0), labels.roll(1, 0)))
    same(exchanged, _total(loss.run(options, logits, labels)), "samples in another order")


@loss_law()
def order_of_axes_changes_nothing(loss: LossSubject, options: Options) -> None:
    """Exchanging or reversing spatial axes changes nothing."""
    logits, labels = loss.logits(), loss.labels()
    expected = _total(loss.run(options, logits, labels))
    if len(loss.spatial_shape) > 1:
        turned = loss.run(options, logits.transpose(-1, -2), labels.transpose(-1, -2))
        same(_total(turned), expected, "the last two axes exchanged")
    for axis in range(1, len(loss.spatial_shape) + 1):
        flipped = loss.run(options, logits.flip(-axis), labels.flip(-axis))
        same(_total(flipped), expected, f"axis {-axis} reversed")


@loss_law()
def slice_equals_volume_of_depth_one(loss: LossSubject, options: Options) -> None:
    """A 2D image and the same image as a volume one voxel deep have one loss."""
    shape = loss.spatial_shape[-2:]
    logits, labels = loss.logits(spatial_shape=shape), loss.labels(spatial_shape=shape)
    image = _total(loss.run(options, logits, labels))
    volume = _total(loss.run(options, logits[:, :, None], labels[:, None]))
    same(volume, image, "a volume of depth one against the image")


@loss_law()
def memory_layout_changes_nothing(loss: LossSubject, options: Options) -> None:
    """Strides change nothing: channels last, and tensors that are not contiguous."""
    logits, labels = loss.logits(), loss.labels()
    expected = loss.score(options, logits, labels)
    for name, change in (("channels last", _channels_last), ("every second element", _strided)):
        leaf = logits.clone().requires_grad_()
        value = loss.run(options, change(leaf), _strided(labels))
        same(value.detach(), expected.value, name)
        gradient = torch.autograd.grad(value.sum(), leaf)[0]
        same(gradient, expected.gradient, f"gradient, {name}")


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def _strided(tensor: Tensor) -> Tensor:
    return torch.stack([tensor, tensor], -1)[..., 0]


@loss_law()
def resolution_changes_nothing(loss: LossSubject, options: Options) -> None:
    """Cutting each voxel into many equal ones leaves a mean loss as it is, to 0.1 %."""
    if options.get("reduction", "mean") != "mean":
        raise NotApplicable("needs reduction='mean'")
    logits, labels = _coarse_scene(loss)
    coarse = loss.run(options, logits, labels)
    for axis in range(2, logits.ndim):
        logits = logits.repeat_interleave(REPEATS, axis)
        labels = labels.repeat_interleave(REPEATS, axis - 1)
    fine = loss.run(options, logits, labels)
    what = f"each voxel cut into {REPEATS} along each axis"
    same(fine, coarse, what, rtol=1e-3, atol=1e-4)


def _coarse_scene(loss: LossSubject) -> tuple[Tensor, Tensor]:
    """Return large structures with a faint prediction (probability about 0.05) of all of them."""
    shape = tuple(COARSE for _ in loss.spatial_shape)
    labels = loss.labels(samples=1, spatial_shape=shape)
    faint = 0.1 * loss.logits(samples=1, spatial_shape=shape)
    faint[:, 1:] -= 3.0
    return (faint - 3.0 if loss.num_classes == 1 else faint), labels


@loss_law(needs=["batch"], fixes=["batch"])
def batch_pools_the_voxels_of_all_samples(loss: LossSubject, options: Options) -> None:
    """``batch=True`` gives the loss of one sample that holds the voxels of all of them."""
    _mean_or_sum(options)
    logits, labels = _unequal_samples(loss)
    pooled = loss.score({**options, "batch": True}, logits, labels)
    long_logits, long_labels = torch.cat(list(logits), 1)[None], torch.cat(list(labels), 0)[None]
    expected = loss.score({**options, "batch": False}, long_logits, long_labels)
    same(pooled.value, expected.value, "batch=True against one long sample")
    gradient = torch.stack(expected.gradient[0].chunk(len(logits), 1))
    same(pooled.gradient, gradient, "gradient, batch=True against one long sample")


@loss_law(needs=["batch"], fixes=["batch"])
def samples_are_scored_one_by_one(loss: LossSubject, options: Options) -> None:
    """``batch=False`` gives the mean, or the sum, over the losses of single samples."""
    _mean_or_sum(options)
    chosen: Options = {**options, "batch": False}
    logits, labels = _unequal_samples(loss)
    single = [loss.run(chosen, logits[i : i + 1], labels[i : i + 1]) for i in range(len(logits))]
    stacked = torch.stack(single)
    expected = stacked.sum() if options.get("reduction") == "sum" else stacked.mean()
    same(loss.run(chosen, logits, labels), expected, "batch=False against single samples")


def _unequal_samples(loss: LossSubject) -> tuple[Tensor, Tensor]:
    logits, labels = loss.logits(samples=3), loss.labels(samples=3)
    labels[0, : loss.spatial_shape[0] // 2] = 0
    labels[1, loss.spatial_shape[0] // 2 :] = 1
    return logits, labels


def _mean_or_sum(options: Options) -> None:
    if options.get("reduction") == "none":
        raise NotApplicable("needs a reduction")


def _total(value: Tensor) -> Tensor:
    return value.sum()


LAWS = (
    one_hot_equals_class_map,
    channel_axis_of_the_class_map_is_optional,
    dtype_of_the_class_map_changes_nothing,
    order_of_classes_changes_nothing,
    order_of_samples_changes_nothing,
    order_of_axes_changes_nothing,
    slice_equals_volume_of_depth_one,
    memory_layout_changes_nothing,
    resolution_changes_nothing,
    batch_pools_the_voxels_of_all_samples,
    samples_are_scored_one_by_one,
)
