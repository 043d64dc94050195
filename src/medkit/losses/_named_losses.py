"""Several losses under their names, to be weighed and added up."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medkit._core import check

from ._voxel_loss import VoxelLoss, scan_together


@runtime_checkable
class Loss(Protocol):
    """Anything called as ``loss(input, target)`` that returns a tensor."""

    def __call__(self, input: Tensor, target: Tensor, /) -> Tensor:
        """Return the loss of a prediction against a target."""
        ...


class NamedLosses(nn.Module, ABC):
    """Losses by name; what is made of their values is up to ``total``.

    Args:
        losses: Loss by name, a module or a function. Modules are registered. Names alone are
            enough where the values come from elsewhere.
    """

    def __init__(self, losses: Mapping[str, Loss] | Sequence[str]) -> None:
        super().__init__()
        check.kind("losses", losses, (Mapping, Sequence), "losses by name, or names")
        names = () if isinstance(losses, str) else tuple(losses)
        for name in names:
            check.kind("losses", name, str, "losses by name, or names")
        if not names or len(set(names)) < len(names):
            raise check.fail("losses", "at least one named loss, each under its own name", losses)
        self.names: tuple[str, ...] = names
        self.functions: dict[str, Loss] = {}
        self.losses: nn.ModuleDict = nn.ModuleDict()
        for name, loss in losses.items() if isinstance(losses, Mapping) else ():
            if not callable(loss):
                raise TypeError(f"losses[{name!r}] must be a loss to call; got {loss!r}")
            if isinstance(loss, nn.Module):
                if not name or "." in name or hasattr(self.losses, name):
                    raise check.fail("losses", "named like a Python attribute, without dots", name)
                self.losses[name] = loss
            else:
                self.functions[name] = loss

    @abstractmethod
    def total(self, terms: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return what the values of the losses amount to.

        Args:
            terms: Value of each loss by name, as ``terms`` returns them: one number each.
        """

    def terms(
        self,
        input: Float[Tensor, "batch channel *spatial"],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> dict[str, Tensor]:
        """Return the value of each loss by name, before its weight.

        Args:
            input: Logits, handed to every loss.
            target: Target, handed to every loss.
            mask: Voxels that count, handed to every loss if given.
        """
        shared = self._voxel_losses()
        passes = scan_together(shared, input, target, mask)
        keywords = {} if mask is None else {"mask": mask}
        return {
            name: shared[name].from_scan(*passes[name])
            if name in shared
            else self._loss(name)(input, target, **keywords)
            for name in self.names
        }

    def forward(
        self,
        input: Float[Tensor, "batch channel *spatial"],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the weighted sum of the losses.

        Args:
            input: Logits, handed to every loss.
            target: Target, handed to every loss.
            mask: Voxels that count, handed to every loss if given.
        """
        return self.total(self.terms(input, target, mask=mask))

    def rows(
        self, input: Tensor | Sequence[Tensor], target: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Return what the losses are made of, one row for each sample; see ``WholeBatch``.

        Args:
            input: Logits, handed to every loss.
            target: Target, handed to every loss.
            mask: Voxels that count, or None.
        """
        shared = self._voxel_losses()
        passes = scan_together(shared, _one_head(input), target, mask)
        parts = {
            name: {"": shared[name].rows(*passes[name])}
            if name in shared
            else rows_of(self._loss(name), input, target, mask, name=f"losses[{name!r}]")
            for name in self.names
        }
        return {f"{name}.{key}": r for name, part in parts.items() for key, r in part.items()}

    def from_rows(self, rows: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the total from the rows of all samples.

        Args:
            rows: As ``rows`` returns them, those of each sample one below the other.
        """
        return self.total(
            {name: loss_of(self._loss(name), part_of(rows, name)) for name in self.names}
        )

    def values_of(self, terms: Mapping[str, Tensor]) -> Float[Tensor, " loss"]:
        """Return the values in order, in float32 or float64.

        Args:
            terms: Value of each loss by name.

        Raises:
            ValueError: If a value is missing, unknown, or not a single number.
        """
        if set(terms) != set(self.names):
            raise check.fail("terms", f"one value for each of {list(self.names)}", list(terms))
        for name, value in terms.items():
            if value.ndim:
                rule = "a single number, as with reduction 'mean' or 'sum'"
                raise check.fail(f"terms[{name!r}]", rule, f"shape {tuple(value.shape)}")
        return torch.stack([terms[name] for name in self.names])

    def extra_repr(self) -> str:
        """Return the losses that are functions."""
        return ", ".join(f"{name}={loss!r}" for name, loss in self.functions.items())

    def _loss(self, name: str) -> Loss:
        if name in self.functions:
            return self.functions[name]
        if name not in self.losses:
            rule = "given with their names to be evaluated here; otherwise call total(terms)"
            raise check.fail("losses", rule, f"the name {name!r} alone")
        return self.losses[name]

    def _voxel_losses(self) -> dict[str, VoxelLoss]:
        return {name: loss for name, loss in self.losses.items() if isinstance(loss, VoxelLoss)}


@runtime_checkable
class Composed(Protocol):
    """A loss made of other losses, in rows for each sample."""

    def rows(
        self, input: Tensor | Sequence[Tensor], target: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Return what it is made of."""
        ...

    def from_rows(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Return the loss."""
        ...


def rows_of(
    loss: Loss,
    input: Tensor | Sequence[Tensor],
    target: Tensor,
    mask: Tensor | None,
    *,
    name: str = "loss",
) -> dict[str, Tensor]:
    """Return what any loss is made of, one row for each sample; raise if it cannot be taken apart.

    ``name`` is what the message calls the loss.
    """
    if isinstance(loss, VoxelLoss):
        return {"": loss.rows(*scan_together({"": loss}, _one_head(input), target, mask)[""])}
    if isinstance(loss, Composed):
        return loss.rows(input, target, mask)
    raise TypeError(
        f"{name} must be made of counts per class, or a mean over voxels, or be composed of "
        f"such losses; got {loss!r}"
    )


def loss_of(loss: Loss, rows: Mapping[str, Tensor]) -> Tensor:
    """Return the loss from the rows of all samples."""
    if isinstance(loss, VoxelLoss):
        return loss.from_rows(rows[""])
    return cast("Composed", loss).from_rows(rows)  # ``rows_of`` has taken it apart


def part_of(rows: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the rows of one named part."""
    start = f"{name}."
    return {key.removeprefix(start): part for key, part in rows.items() if key.startswith(start)}


def _one_head(input: Tensor | Sequence[Tensor]) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a tensor for a loss of one head; got {type(input)}")
    return input
