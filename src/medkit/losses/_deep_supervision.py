"""A loss on predictions at several resolutions."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medkit._core import check

from ._coarse_target import Truth, coarse_truth
from ._named_losses import Loss, NamedLosses, loss_of, part_of, rows_of


class DeepSupervision(nn.Module):
    r"""The weighted sum of a loss over predictions at several resolutions.

    .. math:: L = \sum_i w_i\,L(x_i, t_i), \qquad w_i = 2^{-i} \Big/ \sum_j 2^{-j}

    with logits :math:`x_i` of head :math:`i`, the finest first, and the target :math:`t_i` at its
    size. By default the last of several heads has weight zero, as in nnU-Net: five weigh
    .533, .267, .133, .067 and 0.

    Use it to train a network that predicts at every level of its decoder. The target is brought
    to each head, not the logits to the target. A coarse voxel covers all the voxels that it
    touches, at any ratio of sizes along each axis, and thin structures survive: of the classes
    among its voxels it takes the foreground class that is rarest in the sample, and background
    only where there is nothing else. Taking the nearest voxel, as nnU-Net and MONAI do, loses
    vessels one voxel wide.

    - Values per channel: the largest. Where those of a sample sum up to one in every voxel
      (one-hot, soft labels), the rarest channel takes its part first and channel 0 what is left.
    - Ignored and masked voxels: a coarse voxel is left out only where all of its voxels are.
    - Weights in a mask: the largest.

    A call also takes one tensor, which is the plain loss, so that validation needs no other code.
    ``terms`` returns the value of each head, and around a ``WeightedSum`` each of its values too.
    Heads of weight zero are not evaluated; they get a gradient of zero, as DDP asks for.

    Args:
        loss: Called as ``loss(input, target)`` for each head, and with ``mask=`` where there is
            one. A module is registered.
        weights: Weight of each head, zero or more, used as they are. None makes those above for
            any number of heads.
        ignore_index: Label of voxels that do not count in a class map. None takes that of
            ``loss``.

    Raises:
        TypeError: If ``loss`` cannot be called.
        ValueError: If a weight is negative, all are zero, or ``loss`` ignores several labels.

    Example:
        >>> import torch
        >>> vessel = torch.zeros(1, 8, 8, dtype=torch.int64)
        >>> vessel[:, 3] = 1
        >>> heads = [torch.zeros(1, 2, n, n) for n in (8, 4, 2)]
        >>> loss = DeepSupervision(DiceLoss(include_background=False))
        >>> terms = loss.terms(heads, vessel)
        >>> {name: round(float(value), 3) for name, value in terms.items()}
        {'head_0': 0.8, 'head_1': 0.667}
        >>> print(f"{loss.total(terms):.3f}")
        0.756

    References:
        F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical
        image segmentation", Nature Methods 18, 2021, supplementary note 2: the weights. C.-Y. Lee
        et al., "Deeply-Supervised Nets", AISTATS, 2015, equation 3.
    """

    def __init__(
        self,
        loss: Loss,
        *,
        weights: Sequence[float] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        if not callable(loss):
            raise TypeError(f"loss must be a loss to call; got {loss!r}")
        self.loss: Loss = loss
        self.weights: tuple[float, ...] | None = None
        if weights is not None:
            self.weights = tuple(check.non_negative("weights", w) for w in weights)
            if not any(self.weights):
                raise check.fail("weights", "positive for at least one head", weights)
        self.ignore_index: int | None = _ignored(loss) if ignore_index is None else ignore_index

    def terms(
        self,
        input: Float[Tensor, "batch channel *spatial"] | Sequence[Tensor],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> dict[str, Tensor]:
        """Return the value for each head of positive weight, before its weight.

        They are called ``head_0``, ``head_1`` and so on. If the loss is made of named losses,
        there is a value for each of them: ``head_0.dice``, ``head_0.ce``.

        Args:
            input: Logits of each head, the finest first and of the size of the target.
            target: Class map, or values per channel.
            mask: Voxels that count, boolean or weights; None counts all.

        Raises:
            ValueError: If shapes do not fit, or there is not one weight for each head.
        """
        terms: dict[str, Tensor] = {}
        heads, skipped = self._heads(input, target, mask)
        for name, (logits, truth) in heads.items():
            keywords = {} if truth.mask is None else {"mask": truth.mask}
            if isinstance(self.loss, NamedLosses):
                named = self.loss.terms(logits, truth.target, **keywords)
                terms |= {f"{name}.{key}": value for key, value in named.items()}
            else:
                terms[name] = self.loss(logits, truth.target, **keywords)
        return _touching(terms, skipped)

    def total(self, terms: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the weighted sum of values of the heads.

        Args:
            terms: As ``terms`` returns them.

        Raises:
            ValueError: If a head is missing, unknown, or its value not a single number.
        """
        names = dict.fromkeys(key.partition(".")[0] for key in terms)
        weights = self._weights(len(names) + 1 if self.weights is None else len(self.weights))
        if list(names) != list(weights):
            raise check.fail("terms", f"the values of {', '.join(weights)}", list(terms))
        loss = self.loss
        total: list[Tensor] = []
        for name, weight in weights.items():
            if isinstance(loss, NamedLosses):
                value = loss.total(part_of(terms, name))
            else:
                value = terms[name]
            if value.ndim:
                rule = "a single number, as with reduction 'mean' or 'sum'"
                raise check.fail(f"terms[{name!r}]", rule, f"shape {tuple(value.shape)}")
            total.append(weight * value)
        return torch.stack(total).sum()

    def forward(
        self,
        input: Float[Tensor, "batch channel *spatial"] | Sequence[Tensor],
        target: Shaped[Tensor, "batch ..."],
        *,
        mask: Shaped[Tensor, "batch ..."] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the weighted sum over the heads, or the loss of a single tensor.

        Args:
            input: Logits of each head, the finest first and of the size of the target.
            target: Class map, or values per channel.
            mask: Voxels that count, boolean or weights; None counts all.
        """
        if isinstance(input, Tensor):
            return self.loss(input, target, **({} if mask is None else {"mask": mask}))
        return self.total(self.terms(input, target, mask=mask))

    def rows(
        self, input: Tensor | Sequence[Tensor], target: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Return what the loss of each head is made of, one row for each sample.

        Args:
            input: Logits of each head.
            target: Class map, or values per channel.
            mask: Voxels that count, or None.
        """
        rows: dict[str, Tensor] = {}
        heads, skipped = self._heads(input, target, mask)
        for name, (logits, truth) in heads.items():
            part = rows_of(self.loss, logits, truth.target, truth.mask)
            rows |= {f"{name}.{key}": each for key, each in part.items()}
        return _touching(rows, skipped)

    def from_rows(self, rows: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the total from the rows of all samples.

        Args:
            rows: As ``rows`` returns them, those of each sample one below the other.
        """
        names = dict.fromkeys(key.partition(".")[0] for key in rows)
        weights = self._weights(len(names) + 1 if self.weights is None else len(self.weights))
        values = [w * loss_of(self.loss, part_of(rows, name)) for name, w in weights.items()]
        return torch.stack(values).sum()

    def extra_repr(self) -> str:
        """Return the options."""
        function = "" if isinstance(self.loss, nn.Module) else f"loss={self.loss!r}, "
        return f"{function}weights={self.weights}, ignore_index={self.ignore_index}"

    def _weights(self, num_heads: int) -> dict[str, float]:
        """Return the weights that are not zero, by the name of their head."""
        weights = self.weights
        if weights is None:
            weights = [2.0**-i for i in range(max(1, num_heads - 1))]
            weights = [w / sum(weights) for w in weights]
        elif len(weights) != num_heads:
            raise check.fail("input", f"{len(weights)} heads, one for each weight", num_heads)
        return {f"head_{i}": weight for i, weight in enumerate(weights) if weight}

    def _heads(
        self, input: Tensor | Sequence[Tensor], target: Tensor, mask: Tensor | None
    ) -> tuple[dict[str, tuple[Tensor, Truth]], list[Tensor]]:
        """Return the logits and the truth of the heads that have a weight, and the other heads."""
        heads = [input] if isinstance(input, Tensor) else list(input)
        _check_heads(heads, target, mask)
        weights = self._weights(len(heads))
        known = {tuple(heads[0].shape[2:]): Truth(target, mask)}
        wanted: dict[str, tuple[Tensor, Truth]] = {}
        skipped: list[Tensor] = []
        for number, head in enumerate(heads):
            if f"head_{number}" not in weights:
                skipped.append(head)
                continue
            size = tuple(head.shape[2:])
            if size not in known:
                known[size] = coarse_truth(
                    Truth(target, mask),
                    size,
                    num_classes=head.shape[1],
                    ignore_index=self.ignore_index,
                )
            wanted[f"head_{number}"] = head, known[size]
        return wanted, skipped


def _ignored(loss: Loss) -> int | None:
    """Return the label that a loss, or the losses in it, ignore."""
    if not isinstance(loss, nn.Module):
        return None
    labels: list[int | None] = [getattr(each, "ignore_index", None) for each in loss.modules()]
    ignored = {label for label in labels if label is not None}
    if len(ignored) > 1:
        raise check.fail("loss", "made of losses that ignore the same label", sorted(ignored))
    return next(iter(ignored), None)


def _check_heads(heads: Sequence[Tensor], target: Tensor, mask: Tensor | None) -> None:
    """Raise unless the heads go together and with the target."""
    if not heads:
        raise check.fail("input", "the logits of at least one head", "none")
    first = heads[0]
    if first.ndim < 2:
        raise check.fail("input", "(batch, channel, *spatial)", f"shape {tuple(first.shape)}")
    batch, channels, *spatial = first.shape
    for head in heads[1:]:
        fits = head.ndim == first.ndim and tuple(head.shape[:2]) == (batch, channels)
        if not fits or any(
            not 0 < n <= full for n, full in zip(head.shape[2:], spatial, strict=True)
        ):
            rule = f"heads ({batch}, {channels}, *spatial), none larger than the first {spatial}"
            raise check.fail("input", rule, f"shape {tuple(head.shape)}")
    plain = (batch, *spatial), (batch, 1, *spatial)
    if tuple(target.shape) not in {*plain, tuple(first.shape)}:
        rule = (
            "a class map (batch, *spatial) or (batch, 1, *spatial), or one value per channel "
            f"(batch, channel, *spatial), for a finest head of shape {tuple(first.shape)}"
        )
        raise check.fail("target", rule, f"shape {tuple(target.shape)}")
    if mask is not None and tuple(mask.shape) not in set(plain):
        rule = f"(batch, *spatial) or (batch, 1, *spatial), for a finest head of {spatial}"
        raise check.fail("mask", rule, f"shape {tuple(mask.shape)}")


def _touching(values: dict[str, Tensor], skipped: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the values; the gradient of the first reaches the skipped heads too, as zeros."""
    name = next(iter(values))
    for head in skipped:
        values[name] = values[name] + head.flatten()[:0].sum().to(values[name].dtype)
    return values
