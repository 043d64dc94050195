"""The mean prediction over several views of a volume."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check

from ._activation import Activation, probabilities
from ._view import View, flip_views


def test_time_augmentation(
    inputs: Shaped[Tensor, "batch channel *spatial"],
    predictor: Callable[[Tensor], Tensor],
    *,
    views: Sequence[View] | None = None,  # noqa: PT028  no test, in spite of the name
    average: Literal["logits", "probabilities"] = "logits",  # noqa: PT028
    activation: Activation = "softmax",  # noqa: PT028
    batch_size: int = 1,  # noqa: PT028
) -> Float[Tensor, "batch num_classes *spatial"]:
    r"""Return the mean prediction over several views of the same volumes.

    .. math:: y = \frac{1}{n} \sum_{i=1}^n T_i^{-1}\bigl(f(T_i\,x)\bigr)

    Use it for a point or two of Dice at n times the cost. Sums are kept in float32 or better and
    no gradient is recorded; memory does not grow with the number of views. Where the spread over
    the views is wanted too, take ``predictive_uncertainty``.

    Args:
        inputs: Volumes of one size.
        predictor: Returns logits ``(batch, num_classes, *spatial)`` of volumes: a network in
            evaluation mode, or a function that runs ``sliding_window_inference``.
        views: Ways to look at the volumes; None takes all combinations of flips, as nnU-Net does:
            eight in 3D, four in 2D.
        average: What is averaged: "logits", as nnU-Net does, or "probabilities".
        activation: What makes probabilities of logits; without effect on "logits".
        batch_size: How many views go through the predictor in one call, if they have one shape.

    Returns:
        Mean logits or mean probabilities, in float32 or float64.

    Raises:
        ValueError: If there is no view, an option is unknown, or a prediction does not have the
            size of its view.

    Example:
        >>> import torch
        >>> image = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> def drift(image):  # answers differ from left to right
        ...     return image + torch.tensor([0.0, 1.0])
        >>> test_time_augmentation(image, drift).flatten().tolist()
        [0.5, 1.5, 2.5, 3.5]

    References:
        F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical
        image segmentation", Nature Methods 18, 2021, online methods, "Inference". G. Wang et al.,
        "Aleatoric uncertainty estimation with test-time augmentation for medical image
        segmentation with convolutional neural networks", Neurocomputing 338, 2019, equation 8.
    """
    check.one_of("average", average, ("logits", "probabilities"))
    chosen = views_for(inputs, views)
    total = torch.zeros(())
    for number, scores in enumerate(view_scores(inputs, predictor, chosen, batch_size=batch_size)):
        each = probabilities(scores, activation) if average == "probabilities" else scores
        total = total.add_(each) if number else each.clone()
    return total.div_(len(chosen))


def views_for(inputs: Tensor, views: Sequence[View] | None) -> Sequence[View]:
    """Return the views of the caller, or all flips of the spatial axes."""
    if views is None:
        if inputs.ndim < 3:
            raise check.fail("inputs", "(batch, channel, *spatial)", f"shape {tuple(inputs.shape)}")
        return flip_views(range(inputs.ndim - 2))
    if not len(views):
        raise check.fail("views", "at least one view", views)
    return views


def view_scores(
    inputs: Tensor,
    predictor: Callable[[Tensor], Tensor],
    views: Sequence[View],
    *,
    batch_size: int = 1,
) -> Iterator[Tensor]:
    """Yield the logits of the volumes as seen in each view, brought back, in float32 or better."""
    check.integer("batch_size", batch_size, minimum=1)
    size = tuple(inputs.shape[2:])
    for chunk in _batched(views, batch_size):
        with torch.no_grad():
            seen = [view.apply(inputs) for view in chunk]
            together = len({x.shape for x in seen}) == 1
            runs = [torch.cat(seen)] if together else seen
            parts = [part for run in runs for part in _split(_predict(predictor, run), len(inputs))]
        for view, scores in zip(chunk, parts, strict=True):
            yield view.invert(scores, size)


def _batched(views: Sequence[View], size: int) -> Iterator[Sequence[View]]:
    for start in range(0, len(views), size):
        yield views[start : start + size]


def _split(scores: Tensor, size: int) -> Iterator[Tensor]:
    for start in range(0, len(scores), size):
        yield scores[start : start + size]


def _predict(predictor: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the prediction in float32 or better, of the shape of its input."""
    scores = predictor(x)
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"predictor must return one floating-point tensor; got {got}")
    if scores.ndim != x.ndim or (len(scores), *scores.shape[2:]) != (len(x), *x.shape[2:]):
        rule = f"of shape ({len(x)}, any, {', '.join(map(str, x.shape[2:]))}), as its input"
        raise check.fail("the predictor's output", rule, f"shape {tuple(scores.shape)}")
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
