"""Steps behind a network, one after the other, that can be looked at one by one."""

import functools
from collections.abc import Callable, Iterator, Mapping

from jaxtyping import Shaped
from torch import Tensor

from medkit._core import check


class Chain:
    """Steps that are applied one after the other, each with a name.

    Use it to write down what happens between the network and the result once, for validation,
    test and use alike. A step is any function of a tensor; ``functools.partial`` gives it options.

    Args:
        steps: Functions from tensor to tensor by name, in order.

    Raises:
        ValueError: If there are none.

    Example:
        >>> from functools import partial
        >>> import torch
        >>> from medkit import ops
        >>> sure = partial(ops.hysteresis_threshold, low=0.3, high=0.8, connectivity=8)
        >>> line = ops.box_element((1, 3), spatial_dims=2)
        >>> chain = Chain({"sure": sure, "close": partial(ops.binary_closing, element=line)})
        >>> p = torch.tensor([[[[0.9, 0.1, 0.9, 0.1, 0.5]]]])
        >>> [(name, int(x.sum())) for name, x in chain.results(p)]
        [('sure', 2), ('close', 3)]
    """

    def __init__(self, steps: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
        if not steps:
            raise check.fail("steps", "at least one function by name", dict(steps))
        self.steps: dict[str, Callable[[Tensor], Tensor]] = dict(steps)

    def __call__(
        self, input: Shaped[Tensor, "batch channel *spatial"]
    ) -> Shaped[Tensor, "batch ..."]:
        """Return the result of the last step."""
        return functools.reduce(lambda x, step: step(x), self.steps.values(), input)

    def results(
        self, input: Shaped[Tensor, "batch channel *spatial"]
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the result of each step.

        Args:
            input: What the first step takes.
        """
        result = input
        for name, step in self.steps.items():
            result = step(result)
            yield name, result

    def __repr__(self) -> str:
        return f"Chain({', '.join(self.steps)})"
