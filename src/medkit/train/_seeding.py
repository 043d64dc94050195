"""The random state of the process: seed it, save it, set it aside."""

import os
import random
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from torch import Tensor

from medkit._core import check

_SEEDS = 2**32


def seed_everything(seed: int, *, deterministic: bool = False, rank: int | None = None) -> None:
    """Seed the generators of Python, NumPy and torch, on every device.

    The only function of medkit that touches global seeds. Workers of a ``DataLoader`` follow from
    torch's seed.

    Args:
        seed: Whole number in [0, 2^32).
        deterministic: Also make torch refuse operations that differ from run to run on a GPU and
            stop cuDNN from choosing algorithms by timing. The first call takes seconds; call it
            before the first use of the GPU.
        rank: Number of this process; each rank then has its own stream. None gives ``seed`` as
            it is.

    Raises:
        ValueError: If ``seed`` or ``rank`` is out of range.

    Example:
        >>> import torch
        >>> seed_everything(0)
        >>> first = torch.rand(2)
        >>> seed_everything(0)
        >>> torch.equal(first, torch.rand(2))
        True
    """
    number = check.integer("seed", seed, minimum=0)
    if number >= _SEEDS:
        raise check.fail("seed", "below 2**32", seed)
    if rank is not None:
        check.integer("rank", rank, minimum=0)
        number = int(np.random.SeedSequence((number, rank)).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002  the global state is the point
    torch.manual_seed(number)  # pyright: ignore[reportUnknownMemberType]  torch leaves it untyped
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def rng_state() -> dict[str, Tensor]:
    """Return the state of every global generator: Python, NumPy, torch, and GPUs in use.

    Returns:
        Tensors by name, which ``torch.load(weights_only=True)`` can read back.

    Example:
        >>> import torch
        >>> state = rng_state()
        >>> first = torch.rand(2)
        >>> set_rng_state(state)
        >>> torch.equal(first, torch.rand(2))
        True
    """
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = cast(
        "tuple[str, np.ndarray, int, int, float]",
        np.random.get_state(),  # noqa: NPY002
    )
    state = {
        "python": torch.tensor([version, *words]),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.tensor([*map(int, keys), position, has_gauss]),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for index, device_state in enumerate(torch.cuda.get_rng_state_all()):
            state[f"cuda:{index}"] = device_state
    return state


def set_rng_state(state: Mapping[str, Tensor]) -> None:
    """Set every global generator back to a state.

    Args:
        state: As :func:`rng_state` gave it. States of GPUs that are not here are left out.

    Example:
        >>> import random
        >>> state = rng_state()
        >>> first = random.random()
        >>> set_rng_state(state)
        >>> random.random() == first
        True
    """
    version, *words = state["python"].numpy().tolist()
    gauss = state["python_gauss"].numpy().tolist()
    random.setstate((version, tuple(words), gauss[0] if gauss else None))
    *keys, position, has_gauss = state["numpy"].numpy().tolist()
    np.random.set_state(  # noqa: NPY002
        ("MT19937", np.array(keys, np.uint32), position, has_gauss, state["numpy_gauss"].item())
    )
    torch.set_rng_state(state["torch"].cpu())
    for name, value in state.items():
        kind, _, index = name.partition(":")
        if kind == "cuda" and int(index) < torch.cuda.device_count():
            torch.cuda.set_rng_state(value.cpu(), int(index))


@contextmanager
def fork_rng(*, seed: int | None = None) -> Generator[None, None, None]:
    """Set the global random state aside, and put it back at the end.

    Whatever happens inside (validation, sampling, dropout at prediction time) leaves the numbers
    that come after as they would have been without it.

    Args:
        seed: Seeds everything inside; None goes on from the present state.

    Yields:
        Nothing.

    Example:
        >>> import torch
        >>> state = torch.get_rng_state()
        >>> with fork_rng(seed=0):
        ...     print(torch.rand(1))
        tensor([0.4963])
        >>> torch.equal(state, torch.get_rng_state())
        True
    """
    state = rng_state()
    try:
        if seed is not None:
            seed_everything(seed)
        yield
    finally:
        set_rng_state(state)
