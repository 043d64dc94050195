"""Cut-out and mixup: images with parts hidden, and images of two."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medkit._core import check

from ._intensity import as_float
from ._random_intensity import noise
from ._transform import IntensityTransform, Sample, names, tensor


class RandomCutOut(IntensityTransform):
    """Hides rectangles in the last two axes, through the full depth or slice by slice.

    The middle of each is drawn among all voxels of a plane, so that some stick out. Labels stay as
    they are.

    Args:
        size: Height and width in voxels; one number for both.
        num_cuts: Number of rectangles.
        probability: Of cutting.
        fill: Value to hide behind; "noise" takes normal noise stretched to the range of the image.
        through: Whether each rectangle goes through the "volume", or each "slice" has its own.
        invalid_label: Voxels of this label are never hidden.
        label: Key of the label that is looked at for it.
        images: Keys of the images.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> cut = RandomCutOut(size=3, num_cuts=1, probability=1.0)
        >>> hidden = cut({"image": torch.ones(1, 4, 9, 9)})["image"] == 0
        >>> bool((hidden == hidden[:, :1]).all())
        True

    References:
        T. DeVries, G. W. Taylor, "Improved Regularization of Convolutional Neural Networks with
        Cutout", 2017, section 3.
    """

    draws: bool = True

    def __init__(
        self,
        *,
        size: int | Sequence[int],
        num_cuts: int = 1,
        probability: float = 0.5,
        fill: float | Literal["noise"] = 0.0,
        through: Literal["volume", "slice"] = "volume",
        invalid_label: int | None = None,
        label: str = "label",
        images: str | Sequence[str] = "image",
    ) -> None:
        check.one_of("through", through, ("volume", "slice"))
        sizes = check.per_axis("size", size, 2)
        self.size: tuple[int, ...] = tuple(check.integer("size", n, minimum=1) for n in sizes)
        self.num_cuts: int = check.integer("num_cuts", num_cuts, minimum=1)
        self.probability: float = check.fraction("probability", probability)
        self.fill: float | Literal["noise"] = fill if fill == "noise" else check.real("fill", fill)
        self.through: Literal["volume", "slice"] = through
        self.invalid_label: int | None = invalid_label
        self.label: str = label
        self.images: tuple[str, ...] = names(images)

    def _change(self, image: Tensor, sample: Sample, generator: np.random.Generator) -> Tensor:
        if image.ndim < 3:
            raise check.fail("image", "of two spatial axes or more", f"shape {tuple(image.shape)}")
        depth = image.shape[1:-2] if self.through == "slice" else (1,) * (image.ndim - 3)
        hidden = torch.zeros((*depth, *image.shape[-2:]), dtype=torch.bool, device=image.device)
        for _ in range(self.num_cuts):
            hidden |= self._rectangle(image, depth, 0, generator).unsqueeze(-1) & self._rectangle(
                image, depth, 1, generator
            ).unsqueeze(-2)
        if self.invalid_label is not None:
            hidden = hidden & (tensor(sample, self.label) != self.invalid_label).all(0)
        values = as_float(image)
        if self.fill != "noise":
            return values.masked_fill(hidden, float(self.fill))
        cover = noise(values, generator)
        (low, high), (least, most) = values.aminmax(), cover.aminmax()
        return torch.where(hidden, (cover - least) * ((high - low) / (most - least)) + low, values)

    def _rectangle(
        self, image: Tensor, depth: Sequence[int], side: int, generator: np.random.Generator
    ) -> Tensor:
        """Return which rows, or columns, lie in one rectangle of each plane."""
        count, size = image.shape[side - 2], self.size[side]
        middle = torch.tensor(generator.integers(count, size=(*depth, 1)), device=image.device)
        place = torch.arange(count, device=image.device)
        return (place >= middle - size // 2) & (place < middle + size - size // 2)


def mixup(
    input: Float[Tensor, "batch *item"],
    *,
    weight: Shaped[Tensor, " batch"],
    order: Shaped[Tensor, " batch"],
) -> Float[Tensor, "batch *item"]:
    r"""Batch of images or soft labels mixed with itself: :math:`w_i x_i + (1 - w_i) x_{o_i}`.

    Call it with one draw for images and for one-hot labels. Draw weights from a Beta distribution
    with both parameters equal, e.g. 0.2 (``torch.distributions.Beta``), and a permutation.

    Args:
        input: Images, or labels as probabilities.
        weight: :math:`w`, in [0, 1].
        order: :math:`o`, the number of the item that each is mixed with.

    Returns:
        The mixed batch.

    Raises:
        ValueError: If weights lie outside of [0, 1].

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [4.0]])
        >>> mixup(x, weight=torch.tensor([0.75, 1.0]), order=torch.tensor([1, 0]))
        tensor([[1.],
                [4.]])

    References:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR, 2018, equation 1.
    """
    if bool(((weight < 0) | (weight > 1)).any()):
        raise check.fail("weight", "in [0, 1]", str(weight))
    shape = (-1,) + (1,) * (input.ndim - 1)
    share = weight.to(input.dtype).reshape(shape)
    return torch.lerp(input[order], input, share)
