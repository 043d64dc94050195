"""A loss of a whole batch that comes in pieces."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medkit._core import check

from ._named_losses import Loss, loss_of, rows_of
from ._processes import Gathered, gather_rows

SAME = 1e-4
"""How far, relative to their size, counts may differ when a piece comes back."""


class WholeBatch(nn.Module):
    r"""The loss of a whole batch, with its exact gradient, where only pieces of it fit.

    A Dice loss over a batch is a ratio of sums, and the mean of the losses of pieces, which
    accumulation and several processes make of it, is another function with another gradient. But
    the sums add up: with the counts :math:`n_i(\theta)` of piece :math:`i` and
    :math:`N = \sum_i n_i`

    .. math::

        \frac{d L(N)}{d\theta} = \sum_i \frac{\partial L}{\partial N} \frac{d n_i}{d\theta}

    so each piece can give its part of the gradient once :math:`N` is known. Show every piece
    twice: to ``add``, without gradient, and then, in the same order, in a call. Each call returns
    the loss of the whole batch, and its ``backward`` gives the part of that piece; the parts add
    up to the gradient of the whole batch. After the last piece it is ready for the next batch.

    It costs one more forward pass of each piece, without gradient, and keeps a few numbers per
    sample. Where the whole share of a process fits at once, a call without ``add`` before is
    enough and costs nothing more.

    Use it with any ``loss`` made of counts per class, or a mean over voxels: Dice, cross entropy
    and their like, with ``batch`` or without, ignored voxels and masks, alone or in a
    ``WeightedSum`` or ``DeepSupervision``.

    In several processes (``torch.distributed``) the batch is that of all of them: each must call
    as often as it has pieces, at least once. Gradients are taken to be averaged over processes
    then, as DDP and FSDP do.

    The network must predict the same both times. Dropout does not, unless random numbers are
    seeded alike before both passes of a piece; a difference is an error. Batch normalisation in
    training sees pieces, not the batch, and counts each piece twice in its running statistics.

    Args:
        loss: A loss of this package, or a composition of them.
        gradients: How the caller puts the pieces together: "sum" as repeated ``backward`` does,
            "mean" as ``medkit.train.Stepper`` does, which divides by the number of pieces.

    Raises:
        TypeError: If ``loss`` is not made of sums over voxels.
        ValueError: If ``gradients`` is unknown, or an option of the loss is not a matter of sums.

    Example:
        >>> import torch
        >>> loss = WholeBatch(DiceLoss(batch=True))
        >>> x, label = torch.randn(4, 2, 8, requires_grad=True), torch.arange(32).view(4, 8) % 2
        >>> pieces = list(zip(x.split(1), label.split(1)))
        >>> for logits, piece in pieces:
        ...     loss.add(logits, piece)
        >>> for logits, piece in pieces:
        ...     loss(logits, piece).backward()
        >>> at_once = torch.autograd.grad(DiceLoss(batch=True)(x, label), x)[0]
        >>> torch.allclose(x.grad, at_once)
        True

    References:
        L. Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
        RepL4NLP, 2021, section 3: two passes for a loss of a whole batch, there through gradients
        of representations.
    """

    def __init__(self, loss: Loss, *, gradients: Literal["sum", "mean"] = "sum") -> None:
        super().__init__()
        check.one_of("gradients", gradients, ("sum", "mean"))
        self.loss: Loss = loss
        self.gradients: Literal["sum", "mean"] = gradients
        self._added: list[Tensor] = []
        self._seen: list[Tensor] = []
        self._whole: Gathered | None = None

    def add(
        self,
        input: Float[Tensor, "batch channel *spatial"] | Sequence[Tensor],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> None:
        """Count a piece, without gradient.

        Args:
            input: Logits of some samples, or of each head.
            target: Their target.
            mask: Voxels that count; None counts all.

        Raises:
            RuntimeError: If pieces of the batch before have not come back; see ``reset``.
        """
        if self._whole is not None:
            raise RuntimeError(
                f"add() must come after all pieces of a batch have come back; "
                f"{len(self._added) - len(self._seen)} are missing (reset() gives them up)"
            )
        with torch.no_grad():
            self._added.append(_table(rows_of(self.loss, input, target, mask)))

    def forward(
        self,
        input: Float[Tensor, "batch channel *spatial"] | Sequence[Tensor],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the loss of the whole batch, with the gradient of this piece.

        Args:
            input: Logits of some samples, or of each head.
            target: Their target.
            mask: Voxels that count; None counts all.

        Raises:
            RuntimeError: If it is not a piece that was added, or its predictions have changed.
        """
        own = rows_of(self.loss, input, target, mask)
        table = _table(own)
        if not self._added:
            return self._loss(gather_rows(table, pieces=1), table, own, 0)
        if self._whole is None:
            self._whole = gather_rows(torch.cat(self._added), pieces=len(self._added))
        whole, offset = self._whole, sum(len(rows) for rows in self._seen)
        self._seen.append(table.detach())
        self._check_piece()
        return self._loss(whole, table, own, offset)

    def reset(self) -> None:
        """Forget the pieces of a batch that was given up, for example after an error."""
        self._added, self._seen, self._whole = [], [], None

    def extra_repr(self) -> str:
        """Return the options."""
        return f"gradients={self.gradients!r}"

    def _check_piece(self) -> None:
        """Raise unless the last piece is the one that was added; close the batch after its last."""
        added, seen = self._added[len(self._seen) - 1], self._seen[-1]
        if added.shape != seen.shape:
            number = len(self._seen)
            self.reset()
            raise RuntimeError(
                f"pieces must come back in the order of add(); piece {number} had "
                f"{len(added)} samples and now has {len(seen)}"
            )
        if len(self._seen) < len(self._added):
            return
        before, now = torch.cat(self._added), torch.cat(self._seen)
        self.reset()
        if torch.compiler.is_compiling() or now.device.type == "meta":
            return
        change = ((now - before).abs() / before.abs().clamp(min=1)).amax(1)
        if bool((change > SAME).any()):
            raise RuntimeError(
                f"predictions must be the same when a piece comes back; counts of sample "
                f"{int(change.argmax())} of the batch differ by {float(change.max()):.1e}: dropout "
                "must be seeded before each piece, and weights must not have moved"
            )

    def _loss(
        self, whole: Gathered, table: Tensor, own: Mapping[str, Tensor], offset: int
    ) -> Tensor:
        """Return the loss of all rows, those of this piece with their gradient."""
        at = whole.first + offset
        rows = torch.cat([whole.rows[:at], table, whole.rows[at + len(table) :]])
        parts: dict[str, Tensor] = {}
        for key, part in own.items():
            parts[key] = rows[:, : part.shape[1]].to(part.dtype)
            rows = rows[:, part.shape[1] :]
        value = loss_of(self.loss, parts)
        if value.ndim:
            rule = "a single number, as with reduction 'mean' or 'sum'"
            raise check.fail("loss", rule, f"shape {tuple(value.shape)}")
        factor = whole.pieces if self.gradients == "mean" else whole.processes
        return value if factor == 1 else value.detach() + factor * (value - value.detach())


def _table(rows: Mapping[str, Tensor]) -> Tensor:
    """Return all rows of each sample side by side."""
    return torch.cat(list(rows.values()), dim=1)
