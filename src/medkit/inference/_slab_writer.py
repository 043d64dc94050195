"""Scores of a volume, written while they are predicted."""

import os
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

import medkit
from medkit._core import check
from medkit._core.hdf5_stream import stream_hdf5
from medkit.data import Volume
from medkit.ops import affine_spacing

from ._slabs import Slab

_CHUNK = 32  # voxels along each axis; a slab rarely ends on it, and a chunk is then packed twice


def write_slabs(
    slabs: Iterable[Slab],
    path: str | os.PathLike[str],
    *,
    volume: Volume,
    name: str = "scores",
    dtype: Literal["float16", "float32"] = "float16",
    provenance: Mapping[str, str | float] | None = None,
) -> None:
    """Write scores that come slab by slab to an HDF5 file that appears whole or not at all.

    The array is (C, D, H, W) in compressed chunks with checksums, with the affine and the spacing
    of the volume as attributes, so that ``data.read_hdf5`` gives a volume in its place and
    ``data.open`` reads parts of it. Memory is that of one slab.

    Args:
        slabs: What ``sliding_window_slabs`` yields for one volume.
        path: Where to; an existing file is replaced at the end.
        volume: The volume that the scores are of.
        name: Path of the array in the file.
        dtype: Stored type; float16 keeps three digits.
        provenance: Attributes of the group ``metadata``, beside the version of medkit.

    Raises:
        ValueError: If the slabs are not those of one such volume, or a score does not fit the
            type.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> from medkit.data import Volume, read_hdf5
        >>> volume = Volume(torch.rand(1, 9, 8, 7), np.diag([3.0, 1.0, 1.0, 1.0]))
        >>> slabs = sliding_window_slabs(volume.data[None], lambda windows: windows, roi_size=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_slabs(slabs, f"{folder}/a.h5", volume=volume)
        ...     read_hdf5(f"{folder}/a.h5", name="scores")
        Volume(1x9x8x7 float16, 3x1x1 mm, RAS, ...a.h5)
    """
    check.one_of("dtype", dtype, ("float16", "float32"))
    size, known = volume.spatial_shape, 0
    with stream_hdf5(path) as stream:
        for slab in slabs:
            batch, channels, planes, *rest = slab.scores.shape
            if (batch, slab.start, *rest) != (1, known, *size[1:]) or known + planes > size[0]:
                rule = f"those of one volume of {size}, from plane {known}"
                raise check.fail("slabs", rule, f"{(batch, *rest)} from plane {slab.start}")
            values = slab.scores[0].detach().float().cpu().numpy()
            with np.errstate(over="ignore"):
                stored = values.astype(dtype)
            if not np.array_equal(np.isfinite(stored), np.isfinite(values)):
                raise check.fail("scores", f"within {dtype}", f"{np.abs(values).max():g}")
            chunks = (1, *(min(_CHUNK, n) for n in size))
            stream.append(name, stored.reshape(channels, planes, *rest), axis=1, chunks=chunks)
            known += planes
        if known != size[0]:
            raise check.fail("slabs", f"{size[0]} planes", f"{known}")
        geometry = {"affine": volume.affine, "spacing": np.array(affine_spacing(volume.affine))}
        stream.describe(name, geometry)
        stream.describe("metadata", {"medkit_version": medkit.__version__, **(provenance or {})})
