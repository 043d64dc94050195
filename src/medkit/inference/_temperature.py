"""Probabilities that mean what they say: temperature and vector scaling."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medkit._core import check

from ._activation import Activation

Scaling = Literal["temperature", "vector"]


class TemperatureScaling(nn.Module):
    r"""Divides logits by a temperature found on held-out cases, so that confidence is frequency.

    .. math:: z' = z / T \quad\text{or}\quad z'_c = z_c / T_c + b_c, \qquad
              T, b = \arg\min \sum_v -\log p(t_v \mid z'_v)

    Networks are trained to be too sure. One number mends most of it and leaves every label as it
    is; "vector" has a temperature and a bias for each class, which may change labels. ``fit``
    finds them on validation cases, never on those of training or test; then the module goes
    behind the network. Before ``fit`` it changes nothing.

    Args:
        num_classes: Number of channels of the logits.
        scaling: One "temperature" for all classes, or a "vector" with one and a bias for each.
        activation: "softmax", or "sigmoid" for channels that decide on their own.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0]]])
        >>> scaling = TemperatureScaling(2)
        >>> loss = scaling.fit([(logits, torch.tensor([[0, 0, 0, 1]]))])  # right in 3 of 4
        >>> print(f"{torch.softmax(scaling(logits), dim=1)[0, 0, 0]:.4f}")
        0.7500

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks",
        ICML, 2017, section 4.2, equations 9 and 10.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        scaling: Scaling = "temperature",
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        check.one_of("scaling", scaling, ("temperature", "vector"))
        check.one_of("activation", activation, ("softmax", "sigmoid"))
        self.num_classes: int = check.integer("num_classes", num_classes, minimum=1)
        if activation == "softmax" and num_classes == 1:
            raise check.fail("num_classes", "at least 2 for a softmax", num_classes)
        self.scaling: Scaling = scaling
        self.activation: Activation = activation
        shape = (num_classes,) if scaling == "vector" else ()
        self.log_temperature: nn.Parameter = nn.Parameter(torch.zeros(shape))
        self.bias: nn.Parameter | None = None
        if scaling == "vector":
            self.bias = nn.Parameter(torch.zeros(shape))

    @property
    def temperature(self) -> Tensor:
        """The temperature, above 1 for a network that is too sure; one per class for a vector."""
        return self.log_temperature.detach().exp()

    def forward(
        self, logits: Float[Tensor, "batch num_classes *spatial"]
    ) -> Float[Tensor, "batch num_classes *spatial"]:
        """Return calibrated logits.

        Args:
            logits: What the network returns.
        """
        self._check_logits(logits)
        return _scaled(logits, self.log_temperature, self.bias)

    def fit(
        self,
        cases: Iterable[tuple[Tensor, Tensor]],
        *,
        ignore_index: int | None = None,
        voxels_per_case: int | None = 100_000,
        max_iterations: int = 200,
        generator: torch.Generator | None = None,
    ) -> float:
        """Find temperature and bias on held-out cases; return their mean negative log likelihood.

        Of each case only voxels drawn at random are kept, so that many cases fit in memory. The
        likelihood is computed in float64 and its minimum found by L-BFGS with line search.

        Args:
            cases: Logits ``(batch, num_classes, *spatial)`` and target of each case: a class map
                ``(batch, *spatial)`` or ``(batch, 1, *spatial)`` of integers, or for a sigmoid
                values per channel of the shape of the logits.
            ignore_index: Label of voxels that do not count; for class maps. None counts all.
            voxels_per_case: How many counted voxels of a case are drawn, without replacement;
                None takes all.
            max_iterations: At most as many steps of L-BFGS.
            generator: Random numbers of the draws, on the CPU; None takes torch's own.

        Raises:
            ValueError: If no voxel counts, a label is no class, a logit is not finite, or shapes do
                not fit.
            TypeError: If a class map is not of integers.
        """
        check.integer("max_iterations", max_iterations, minimum=1)
        drawn = [
            self._draw(logits, target, ignore_index, voxels_per_case, generator)
            for logits, target in cases
        ]
        if not sum(len(z) for z, _ in drawn):
            raise check.fail("cases", "at least one voxel that counts", "none")
        with torch.inference_mode(mode=False):  # logits made in inference mode record no gradient
            return self._fit(drawn, max_iterations)

    def _fit(self, drawn: Sequence[tuple[Tensor, Tensor]], max_iterations: int) -> float:
        """Find temperature and bias on drawn voxels; return their likelihood."""
        z = torch.cat([each for each, _ in drawn]).double()
        t = torch.cat([each for _, each in drawn])
        if not z.isfinite().all():
            raise check.fail("logits", "finite", "NaN or infinity")
        log_t = torch.zeros_like(self.log_temperature, dtype=torch.float64, device=z.device)
        parameters = [log_t.requires_grad_()]
        bias = None
        if self.bias is not None:
            bias = torch.zeros_like(log_t).requires_grad_()
            parameters.append(bias)
        _minimize(lambda: self._likelihood(_scaled(z, log_t, bias), t), parameters, max_iterations)
        with torch.no_grad():
            self.log_temperature.copy_(log_t)
            if self.bias is not None and bias is not None:
                self.bias.copy_(bias)
            return float(self._likelihood(_scaled(z, log_t, bias), t))

    def _likelihood(self, z: Tensor, t: Tensor) -> Tensor:
        """Return the mean negative log likelihood of voxels, ``(voxel, class)``."""
        if self.activation == "sigmoid":
            return F.binary_cross_entropy_with_logits(z, t.to(z.dtype))
        return F.cross_entropy(z, t)

    def _draw(
        self,
        logits: Shaped[Tensor, "batch num_classes *spatial"],
        target: Shaped[Tensor, "batch ..."],
        ignore_index: int | None,
        number: int | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Return logits ``(voxel, class)`` and targets of some voxels of a case."""
        self._check_logits(logits)
        z = logits.detach().movedim(1, -1).reshape(-1, self.num_classes)
        per_channel = self.activation == "sigmoid" and target.shape == logits.shape
        shape = (len(logits), *logits.shape[2:])
        if not per_channel and tuple(target.shape) not in (shape, (shape[0], 1, *shape[1:])):
            raise check.fail("target", f"of shape {shape}", f"shape {tuple(target.shape)}")
        if per_channel:
            t = target.movedim(1, -1).reshape(-1, self.num_classes)
            if ignore_index is not None:
                raise check.fail("ignore_index", "None for values per channel", ignore_index)
            kept = torch.arange(len(z))
        else:
            if target.is_floating_point():
                raise TypeError(f"target must be a class map of integers; got {target.dtype}")
            t = target.reshape(-1).long()
            counted = torch.ones_like(t) if ignore_index is None else t != ignore_index
            kept = counted.nonzero().flatten().cpu()
        if number is not None and len(kept) > check.integer("voxels_per_case", number, minimum=1):
            kept = kept[torch.randperm(len(kept), generator=generator)[:number]]
        kept = kept.to(z.device)
        z, t = z[kept], t[kept.to(t.device)].to(z.device)
        if per_channel:
            return z, t
        if len(t) and not (int(t.min()) >= 0 and int(t.max()) < max(2, self.num_classes)):
            rule = f"of labels in [0, {max(2, self.num_classes)})"
            raise check.fail("target", rule, f"labels {int(t.min())} to {int(t.max())}")
        if self.activation == "sigmoid":
            classes = torch.arange(self.num_classes, device=z.device)
            t = t[:, None] == (classes if self.num_classes > 1 else classes + 1)
        return z, t

    def _check_logits(self, logits: Tensor) -> None:
        if logits.ndim < 2 or logits.shape[1] != self.num_classes:
            rule = f"(batch, {self.num_classes}, *spatial)"
            raise check.fail("logits", rule, f"shape {tuple(logits.shape)}")

    def extra_repr(self) -> str:
        """Return the options."""
        return f"{self.num_classes}, scaling={self.scaling!r}, activation={self.activation!r}"


def _scaled(z: Tensor, log_temperature: Tensor, bias: Tensor | None) -> Tensor:
    shape = (-1, *[1] * (z.ndim - 2)) if log_temperature.ndim else ()
    z = z * (-log_temperature).exp().reshape(shape).to(z.dtype)
    return z if bias is None else z + bias.reshape(shape).to(z.dtype)


def _minimize(loss: Callable[[], Tensor], parameters: list[Tensor], max_iterations: int) -> None:
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=max_iterations,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # pyright: ignore[reportUnknownMemberType]  untyped in torch
        return value

    with torch.enable_grad():
        optimizer.step(closure)  # pyright: ignore[reportUnknownMemberType]  untyped in torch
