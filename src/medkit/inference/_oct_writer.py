"""Predictions of retinal layers in an HDF5 file, in rows of the original images."""

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Literal, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

import medkit
from medkit._core import check
from medkit._core.hdf5_stream import Hdf5Stream, stream_hdf5
from medkit.ops import boundaries_from_probabilities, boundary_posterior, rescale_boundaries

from ._activation import entropy

_ROUNDING = 0.01  # of a bfloat16 near 1


class OctPredictionWriter:
    r"""Writes predictions of layers, batch by batch, to a file that appears whole or not at all.

    It is an HDF5 file that holds, one row per B-scan:

    - ``predicted_layers/<name>`` ``(N, width)``: rows of the boundaries in the *original* image,
      float32, however large the image was that the network saw;
    - ``boundary_std/<name>``: their standard deviation in the same rows: with "posterior" that of
      ``ops.boundary_posterior``, else of the distribution :math:`P(b > y) = \sum_{c \le k} p_c(y)`,
      to which a little probability in far rows adds much;
    - ``prediction_masks`` uint8, ``confidence_maps`` (highest probability) and ``entropy_maps``
      (nats) float16, on the grid of the network;
    - ``images``, ``layers/<name>``: what was given, as it is, where it was;
    - attributes of ``dataset_info`` and ``metadata``: sizes, version, time, and what you say of
      the model.

    Use it as a context: when the block ends, the file takes its place; when it fails or the
    process dies, what was there before is untouched. Rows count from the upper edge of the first
    row, so that a boundary is the number of rows above it. Memory is that of one batch.

    Args:
        path: Where to; an existing file is replaced at the end.
        boundaries: Names from top to bottom, one less than there are classes.
        image_shape: Height and width of the original images.
        method: How boundaries are found, as in ``ops.boundaries_from_probabilities``.
        temperature: That of "posterior".
        provenance: Attributes of ``metadata``, e.g. the model's name, its configuration and the
            hash of its checkpoint.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> import tempfile
        >>> import h5py
        >>> import torch
        >>> p = torch.softmax(torch.randn(2, 3, 48, 8), dim=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/predictions.h5"
        ...     writer = OctPredictionWriter(path, boundaries=("ILM", "BM"), image_shape=(62, 8))
        ...     with writer:
        ...         writer.write(p)
        ...     with h5py.File(path) as file:
        ...         file["predicted_layers/ILM"].shape
        (2, 8)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        boundaries: Sequence[str],
        image_shape: Sequence[int],
        method: Literal["sum", "posterior", "map"] = "sum",
        temperature: float = 1.0,
        provenance: Mapping[str, str | float] | None = None,
    ) -> None:
        check.one_of("method", method, ("sum", "posterior", "map"))
        names = tuple(boundaries)
        if not names or len(set(names)) < len(names) or any("/" in name for name in names):
            raise check.fail("boundaries", "different names without '/'", names)
        height, width = check.per_axis("image_shape", tuple(image_shape), 2)
        self.path: str = os.fspath(path)
        self.boundaries: tuple[str, ...] = names
        self.image_shape: tuple[int, int] = (
            check.integer("image_shape", height, minimum=1),
            check.integer("image_shape", width, minimum=1),
        )
        self.method: Literal["sum", "posterior", "map"] = method
        self.temperature: float = check.positive("temperature", temperature)
        self.provenance: dict[str, str | float] = dict(provenance or {})
        self._stack = ExitStack()
        self._stream: Hdf5Stream | None = None
        self._open = False
        self._given: set[str] | None = None

    def __enter__(self) -> "OctPredictionWriter":
        self._stream = self._stack.enter_context(stream_hdf5(self.path))
        self._given, self._open = None, True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            self._open = False
            if error is not None:
                raise error
            self._describe()

    def write(
        self,
        probabilities: Float[Tensor, "batch num_classes height width"],
        *,
        images: Shaped[Tensor, "batch image_height image_width"] | None = None,
        layers: Float[Tensor, "batch boundary image_width"] | None = None,
    ) -> None:
        """Add the predictions of a batch of B-scans.

        Args:
            probabilities: Of the classes from top to bottom, on the grid of the network.
            images: The original images, in the type they are to be stored in.
            layers: Annotated rows of the original images; NaN where unknown.

        Raises:
            ValueError: If shapes do not fit, only some batches have images or layers, or a
                probability is not in [0, 1].
            RuntimeError: If it is not used inside a ``with`` block.
        """
        if not self._open:
            raise RuntimeError("OctPredictionWriter must be used in a with block")
        batch, classes, *grid = probabilities.shape
        names, (height, width) = self.boundaries, self.image_shape
        if classes != len(names) + 1:
            raise check.fail("probabilities", f"of {len(names) + 1} classes", f"{classes}")
        given = {"images": images, "layers": layers}
        wanted = {"images": (batch, height, width), "layers": (batch, len(names), width)}
        present = {name for name, value in given.items() if value is not None}
        if self._given is not None and present != self._given:
            raise check.fail("images and layers", "given with every batch or none", present)
        for name, value in given.items():
            if value is not None and tuple(value.shape) != wanted[name]:
                raise check.fail(name, f"of shape {wanted[name]}", tuple(value.shape))
        self._given = present
        p = probabilities.detach().to(torch.promote_types(probabilities.dtype, torch.float32))
        if not ((p >= 0) & (p <= 1 + _ROUNDING)).all():
            rule = "in [0, 1], as from logits.softmax(1)"
            raise check.fail("probabilities", rule, f"{p.min():g} to {p.max():g}")
        moved, spread = (
            rescale_boundaries(rows, from_shape=grid, to_shape=self.image_shape)
            for rows in self._found(p)
        )
        for k, name in enumerate(names):
            self._append(f"predicted_layers/{name}", moved[:, k].float())
            self._append(f"boundary_std/{name}", spread[:, k].float())
            if layers is not None:
                self._append(f"layers/{name}", layers[:, k])
        self._append("prediction_masks", p.argmax(1).to(torch.uint8))
        self._append("confidence_maps", p.amax(1).half())
        self._append("entropy_maps", entropy(p, "softmax").half())
        if images is not None:
            self._append("images", images)

    def _found(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return boundaries and their standard deviation, on the grid of the network."""
        if self.method == "posterior":
            return boundary_posterior(p, temperature=self.temperature)
        return boundaries_from_probabilities(p, method=self.method), _std(p)

    def _append(self, name: str, values: Tensor) -> None:
        cast("Hdf5Stream", self._stream).append(name, values.detach().cpu().numpy())

    def _describe(self) -> None:
        """Write what the numbers are and where they come from."""
        stream = cast("Hdf5Stream", self._stream)
        masks = stream.shapes.get("prediction_masks")
        if masks is None:
            raise check.fail("the file", "given at least one batch", "none")
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        height, width = self.image_shape
        for group in ("predicted_layers", "boundary_std", "layers"):
            if group != "layers" or "layers" in (self._given or ()):
                space = {"coordinate_space": "rows of the original image", "origin": "edge"}
                stream.describe(group, {**space, "image_height": height, "image_width": width})
        for name in ("prediction_masks", "confidence_maps", "entropy_maps"):
            stream.describe(name, {"coordinate_space": "pixels of the network's input"})
        stream.describe("metadata", {"medkit_version": medkit.__version__, **self.provenance})
        stream.describe("metadata", {"boundary_method": self.method, "inference_timestamp": now})
        if self.method == "posterior":
            stream.describe("metadata", {"boundary_temperature": self.temperature})
        stream.describe(
            "dataset_info",
            {
                "num_samples": masks[0],
                "image_height": height,
                "image_width": width,
                "prediction_classes": len(self.boundaries) + 1,
                "creation_date": now,
            },
        )


def _std(p: Tensor) -> Tensor:
    """Return the standard deviation of each boundary, from its distribution, in rows."""
    beyond = p.double().cumsum(1)[:, :-1]
    rows = torch.arange(p.shape[2], dtype=torch.float64, device=p.device)[:, None]
    square, mean = ((2 * rows + 1) * beyond).sum(2), beyond.sum(2)
    return (square - mean**2).clamp_min(0).sqrt()
