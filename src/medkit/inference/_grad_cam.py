"""Where in the input a network sees what speaks for a class."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medkit._core import check

from ._activation import Activation, probabilities
from ._captured import captured, named_layers
from ._dropout import evaluated
from ._sliding_window import sliding_window_inference

Method = Literal["gradcam", "gradcam++", "hirescam"]
Scale = Literal["max", "none"]
Target = int | Sequence[int] | Tensor | Callable[[Tensor], Tensor] | None
"""A class, a class per sample, a function of the output, or None for the predicted class."""

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class GradCAM:
    r"""Maps of where a layer of a network finds what speaks for a class.

    With the activations :math:`A_k` of the layer's channels and the gradients
    :math:`g_k = \partial y / \partial A_k` of the score y of the class, the map is

    .. math::
        M = \max\Bigl(0, \sum_k w_k A_k\Bigr), \quad
        \text{gradcam:}\ w_k = \frac1N \sum_v g_k(v), \quad
        \text{gradcam++:}\ w_k = \sum_v \frac{\max(0, g_k(v))}{2 + g_k(v) \sum_u A_k(u)}

    and "hirescam" takes :math:`w_k = g_k`, voxel by voxel. It is resized linearly to the input
    and divided by its maximum. Use it to see whether a classifier looks at the lesion or at the
    ruler beside it. A late layer knows what, an early one where. The network is run in evaluation
    mode; afterwards its modes, gradients, buffers and hooks are as they were.

    A map without a positive value, because the gradients vanish or all speaks against the class,
    is zero everywhere, and never NaN. "gradcam++" is made for activations of zero or more, as
    after a ReLU; where its denominator is zero the voxel does not count. It follows the paper, as
    the grad-cam package does; MONAI's sums :math:`g^3 A` instead of :math:`g^3 \sum A`, which is
    the same where gradients are constant over the layer.

    Args:
        model: Any network.
        layers: Name of a layer in ``model.named_modules()``, or several; each must be run once
            and return one tensor.
        method: The formula; "hirescam" shows only what the network used where it used it, if
            nothing but a pooled linear head follows the layer.
        activation: The score is the logit for None, else the probability of the class. Gradients
            of a softmax vanish where the network is sure.
        scale: "max" divides the map of each sample and layer by its maximum; "none" leaves it in
            units of the score, to compare or to average maps.
        to_map: Makes ``(batch, channel, *spatial)`` of what a layer returns, e.g. of the tokens
            of a transformer; None takes it as it is.

    Raises:
        ValueError: If a layer does not exist, or an option is unknown.

    Example:
        >>> import torch
        >>> conv, pool = torch.nn.Conv2d(1, 2, 1, bias=False), torch.nn.AdaptiveAvgPool2d(1)
        >>> _ = torch.nn.init.ones_(conv.weight)
        >>> model = torch.nn.Sequential(conv, pool, torch.nn.Flatten())
        >>> image = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]])
        >>> GradCAM(model, "0")(image, target=1)
        tensor([[[[0.0000, 0.2500],
                  [0.5000, 1.0000]]]])

    References:
        R. R. Selvaraju et al., "Grad-CAM", ICCV, 2017, equations 1 and 2. A. Chattopadhyay et
        al., "Grad-CAM++", WACV, 2018, equations 5 and 19. R. L. Draelos, L. Carin, "Use HiResCAM
        instead of Grad-CAM for faithful explanations of convolutional neural networks", 2020,
        arXiv:2011.08891, section 3.3. K. Vinogradova et al., "Towards Interpretable Semantic
        Segmentation via Gradient-weighted Class Activation Mapping", AAAI, 2020, equation 2.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str],
        *,
        method: Method = "gradcam",
        activation: Activation | None = None,
        scale: Scale = "max",
        to_map: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        check.one_of("method", method, ("gradcam", "gradcam++", "hirescam"))
        check.one_of("activation", activation, ("softmax", "sigmoid", None))
        check.one_of("scale", scale, ("max", "none"))
        self.model: nn.Module = model
        self.layers: tuple[str, ...] = (layers,) if isinstance(layers, str) else tuple(layers)
        if not self.layers:
            raise check.fail("layers", "at least one name", layers)
        self.method: Method = method
        self.activation: Activation | None = activation
        self.scale: Scale = scale
        self.to_map: Callable[[Tensor], Tensor] | None = to_map
        self._modules: list[nn.Module] = named_layers(model, self.layers)

    def __call__(
        self, input: Shaped[Tensor, "batch channel *spatial"], *, target: Target = None
    ) -> Float[Tensor, "batch layer *spatial"]:
        """Return the map of each layer, of the size of the input, in float32 or float64.

        Args:
            input: What the network takes.
            target: A class, or one for each sample; or a function that takes what the network
                returns and gives one score per sample. For a segmentation network the score of a
                class is summed over all voxels; sum over some of them in a function. None means
                the predicted class of each sample, for classification only.

        Raises:
            ValueError: If a layer is not run once, its output does not depend on the layer, a
                class does not exist, or there is no predicted class.
            TypeError: If a layer or the network returns anything but one tensor, or a class is no
                integer.
        """
        return self._scaled(self._maps(input, target))

    def sliding_window(
        self,
        inputs: Shaped[Tensor, "batch channel *spatial"],
        *,
        target: Target,
        roi_size: int | Sequence[int],
        overlap: float | Sequence[float] = 0.5,
        importance: Literal["gaussian", "constant"] = "gaussian",
        batch_size: int = 1,
        progress: bool = False,
    ) -> Float[Tensor, "batch layer *spatial"]:
        """Return the maps of volumes that the network sees one window at a time.

        The unscaled maps of the windows are blended as scores are, and the whole is scaled: a
        window that says little of the class stays dark. Each window has channel weights of its
        own, from the score of its own voxels.

        Args:
            inputs: Volumes of one size.
            target: A class or a function, as for a call; it holds for every window.
            roi_size: Size of the window in voxels; one per axis, or one for all.
            overlap: Fraction of a window that the next one covers again.
            importance: How voxels count within their window.
            batch_size: Number of windows per call of the network.
            progress: Show a progress bar over the calls of the network.

        Raises:
            ValueError: As for a call, or if ``target`` is not the same for every window.
        """
        if not (callable(target) or isinstance(cast("object", target), Integral)):
            raise check.fail("target", "one class or a function", target)
        maps = sliding_window_inference(
            inputs,
            lambda windows: self._maps(windows, target),
            roi_size=roi_size,
            overlap=overlap,
            importance=importance,
            batch_size=batch_size,
            progress=progress,
        )
        return self._scaled(maps)

    def _maps(self, input: Tensor, target: Target) -> Tensor:
        """Return unscaled maps of the size of the input."""
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            evaluated([self.model], dropout=False),
            captured(self._modules) as kept,
        ):
            output = self.model(input.clone() if input.is_inference() else input)
            for name, tensors in zip(self.layers, kept, strict=True):
                if len(tensors) != 1:
                    raise check.fail("layers", "run once each", f"{name!r}, run {len(tensors)}x")
            activations = [tensors[0] for tensors in kept]
            score = self._score(output, target, len(input))
            gradients = self._gradients(score, activations)
        maps: list[Tensor] = []
        for activation, gradient in zip(activations, gradients, strict=True):
            coarse = _coarse_map(self._as_map(activation), self._as_map(gradient), self.method)
            maps.append(_resized(coarse, input.shape[2:]))
        return torch.cat(maps, dim=1)

    def _score(self, output: object, target: Target, batch: int) -> Tensor:
        """Return one score per sample."""
        if callable(target):
            score = target(cast("Tensor", output))
            if tuple(score.shape) != (batch,):
                rule = f"a function that gives one score per sample, shape ({batch},)"
                raise check.fail("target", rule, f"shape {tuple(score.shape)}")
            return score
        if not isinstance(output, Tensor):
            raise TypeError(
                f"target must be a function where the network returns {type(output).__name__}"
            )
        if target is None and output.ndim > 2:
            raise check.fail("target", "given for a network that segments", target)
        if target is None:
            target = output.argmax(1)
        classes = torch.as_tensor(target, device=output.device).reshape(-1)
        if classes.is_floating_point() or classes.dtype == torch.bool:
            raise TypeError(f"target must be classes, integers; got {target!r}")
        if len(classes) not in (1, batch) or not 0 <= classes.min() <= classes.max() < len(
            output[0]
        ):
            rule = f"one class, or one per sample, below {len(output[0])}"
            raise check.fail("target", rule, target)
        scores = output if self.activation is None else probabilities(output, self.activation)
        chosen = scores[torch.arange(batch, device=output.device), classes.expand(batch)]
        return chosen.flatten(1).sum(1) if chosen.ndim > 1 else chosen

    def _gradients(self, score: Tensor, activations: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the gradients of each sample's score towards its activations."""
        if not score.requires_grad:
            raise check.fail("layers", "layers that the score depends on", self.layers)
        found = torch.autograd.grad(score.sum(), activations, allow_unused=True)
        missing = [n for n, g in zip(self.layers, found, strict=True) if cast("object", g) is None]
        if missing:
            raise check.fail("layers", "layers that the score depends on", missing)
        return found

    def _as_map(self, x: Tensor) -> Tensor:
        x = x.detach() if self.to_map is None else self.to_map(x.detach())
        if x.ndim < 3:
            rule = "(batch, channel, *spatial); give to_map for others"
            raise check.fail("the output of a layer", rule, f"shape {tuple(x.shape)}")
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def _scaled(self, maps: Tensor) -> Tensor:
        if self.scale == "none":
            return maps
        highest = maps.flatten(2).amax(2).reshape(*maps.shape[:2], *[1] * (maps.ndim - 2))
        return maps / torch.where(highest > 0, highest, 1)


def _coarse_map(activation: Tensor, gradient: Tensor, method: Method) -> Tensor:
    """Return the map (batch, 1, *spatial) of one layer, on its own grid."""
    space = tuple(range(2, activation.ndim))
    if method == "gradcam":
        weight = gradient.mean(space, keepdim=True)
    elif method == "gradcam++":
        below = 2 + gradient * activation.sum(space, keepdim=True)
        share = torch.where(below == 0, 0, gradient.clamp_min(0) / below)
        weight = share.sum(space, keepdim=True)
    else:
        weight = gradient
    return (weight * activation).sum(1, keepdim=True).clamp_min(0)


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    if maps.shape[2:] == torch.Size(size):
        return maps
    if maps.ndim - 2 != len(size):
        rule = f"maps of {len(size)} spatial axes, as the input"
        raise check.fail("the output of a layer", rule, f"shape {tuple(maps.shape)}")
    return F.interpolate(maps, size=tuple(size), mode=_LINEAR[len(size)], align_corners=False)
