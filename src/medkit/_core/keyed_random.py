"""Random numbers that depend on a key and on nothing that happened before."""

import numpy as np

from . import check


def sample_rng(seed: int, epoch: int, index: int, *, stream: int = 0) -> np.random.Generator:
    """Return the generator of one sample in one epoch.

    Equal keys give equal numbers in any process, on any number of workers, after any restart.
    Different keys give numbers that have nothing to do with each other.

    Args:
        seed: Of the run.
        epoch: Number of the epoch, from 0.
        index: Number of the sample, or of the draw where samples are drawn more than once.
        stream: Which of several independent uses of randomness in one sample.

    Returns:
        A new generator.

    Raises:
        ValueError: If a number is negative.

    Example:
        >>> from medkit.train import sample_rng
        >>> int(sample_rng(0, 3, 17).integers(1000)), int(sample_rng(0, 4, 17).integers(1000))
        (272, 934)
    """
    key = {"seed": seed, "epoch": epoch, "index": index, "stream": stream}
    return np.random.default_rng([check.integer(n, v, minimum=0) for n, v in key.items()])
