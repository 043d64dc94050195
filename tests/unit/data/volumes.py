"""Volumes for tests, and the peers' view of where a voxel is."""

import numpy as np
import torch

from medkit.data import Volume

SHAPE = (3, 4, 5)
DTYPES = (
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64,
    torch.complex64, torch.complex128,
)  # fmt: skip


def affine(seed: int = 0, *, shear: float = 0.0) -> np.ndarray:
    """A rotated affine with unequal spacings, left- or right-handed; oblique and off-centre."""
    generator = np.random.default_rng(seed)
    rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ (np.eye(3) + shear * np.triu(np.ones((3, 3)), 1)) * (2.5, 1.25, 0.8)
    matrix[:3, 3] = generator.uniform(-200, 200, 3)
    return matrix


def volume(
    seed: int = 0,
    *,
    channels: int = 1,
    shape: tuple[int, int, int] = SHAPE,
    dtype: torch.dtype = torch.int16,
    shear: float = 0.0,
) -> Volume:
    """A volume whose voxels all differ (up to the range of the dtype)."""
    count = channels * int(np.prod(shape))
    data = torch.arange(count, dtype=torch.float64).reshape(channels, *shape) % 120
    return Volume(data.to(dtype), affine(seed, shear=shear), "a test")


def world(vol: Volume, index: tuple[int, int, int]) -> np.ndarray:
    """World position of one voxel, by the definition of an affine."""
    return (vol.affine @ (*index, 1))[:3]
