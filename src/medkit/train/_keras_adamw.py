"""Keras' AdamW, whose small number lies elsewhere than torch's."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# (torch's operations on lists of tensors have no public names)

import math
from collections.abc import Callable, Iterable
from typing import cast, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from medkit._core import check


class KerasAdamW(Optimizer):
    r"""Adam with decoupled weight decay, as Keras computes it.

    At step :math:`t` (the first is 1), with gradient :math:`g` and rate :math:`\eta`,

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \\
        w &\leftarrow w - \eta\lambda w
          - \eta\,\frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}\,\frac{m}{\sqrt{v} + \epsilon}.

    ``torch.optim.AdamW`` divides by :math:`\sqrt{v / (1 - \beta_2^t)} + \epsilon`: in its early
    steps, and wherever gradients are as small as :math:`\epsilon`, it takes other steps. Use this
    one to repeat a run of a Keras program. All parameters of a group are updated together, by
    fused lists of tensors. A parameter without a gradient is left alone and its step does not
    count; Keras counts for all.

    Args:
        params: Parameters, or groups of them as :func:`param_groups` gives; a group may have its
            own value of every option below. Keras' ``exclude_from_weight_decay`` is a group with
            ``weight_decay`` 0.
        lr: Learning rate.
        weight_decay: :math:`\lambda`, multiplied by the learning rate.
        betas: :math:`\beta_1` and :math:`\beta_2`.
        eps: :math:`\epsilon`.
        amsgrad: Whether the largest :math:`v` so far takes the place of :math:`v`.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = KerasAdamW([weight], lr=0.1, weight_decay=0.5)
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> round(weight.item(), 4)
        0.85

    References:
        Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019, algorithm 2.
        Kingma and Ba, Adam, ICLR 2015, section 2, last paragraph (this place of epsilon).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, object]],
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.004,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-7,
        amsgrad: bool = False,
    ) -> None:
        defaults = {
            "lr": check.non_negative("lr", lr),
            "weight_decay": check.non_negative("weight_decay", weight_decay),
            "betas": tuple(check.fraction("betas", beta, below_one=True) for beta in betas),
            "eps": check.non_negative("eps", eps),
            "amsgrad": amsgrad,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient.

        Args:
            closure: Computes the loss again and its gradient; None uses the gradients there are.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: If a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in cast("list[Tensor]", group["params"]) if p.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, object]) -> None:
        gradients = [cast("Tensor", p.grad) for p in parameters]
        if any(gradient.is_sparse for gradient in gradients):
            raise RuntimeError("KerasAdamW takes dense gradients; got a sparse one")
        states = [self._state(p, amsgrad=bool(group["amsgrad"])) for p in parameters]
        lr, decay = float(cast("float", group["lr"])), cast("float", group["weight_decay"])
        beta1, beta2 = cast("tuple[float, float]", group["betas"])
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1.0)
        torch._foreach_lerp_(means, gradients, 1.0 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1.0 - beta2)
        if group["amsgrad"]:
            largest = [state["max_exp_avg_sq"] for state in states]
            torch._foreach_maximum_(largest, squares)
            squares = largest
        scale = torch._foreach_sqrt(squares)  # noqa: SLF001  it has no public name
        torch._foreach_add_(scale, cast("float", group["eps"]))
        if decay:
            torch._foreach_mul_(parameters, 1.0 - lr * decay)
        rates = [
            -lr * math.sqrt(1.0 - beta2**count) / (1.0 - beta1**count)
            for count in (step.item() for step in steps)
        ]
        torch._foreach_addcdiv_(parameters, means, scale, rates)

    def _state(self, parameter: Tensor, *, amsgrad: bool) -> dict[str, Tensor]:
        state = cast("dict[str, Tensor]", self.state[parameter])
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            if amsgrad:
                state["max_exp_avg_sq"] = torch.zeros_like(state["exp_avg_sq"])
        return state
