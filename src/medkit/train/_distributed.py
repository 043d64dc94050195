"""Several processes as one run: found, joined, and summed over."""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Literal, NamedTuple

import torch
from torch import Tensor, distributed

from medkit._core import check

from ._agreement import gather_objects

Number = int | float | Tensor


class DistInfo(NamedTuple):
    """Where this process stands in its run.

    Attributes:
        rank: Its number, from 0.
        world_size: Number of processes.
        local_rank: Its number on this machine.
        device: Where it should compute, e.g. "cuda:1" or "cpu".
        adopted: Whether somebody else had set up the process group before.
    """

    rank: int
    world_size: int
    local_rank: int
    device: str
    adopted: bool


def init_distributed(
    *, backend: Literal["auto", "nccl", "gloo"] = "auto", timeout_s: float = 600.0
) -> DistInfo:
    """Join the processes of this run, however they were started; alone, do nothing.

    A process group that is there already (Ray Train, Lightning, Accelerate) is adopted. Else the
    variables of torchrun (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``) or of Slurm's ``srun`` say
    where to meet. On a machine with GPUs each process takes the one of its local number.

    Args:
        backend: How to exchange tensors; ``"auto"`` is NCCL with a GPU and gloo without.
        timeout_s: Seconds that one exchange may take before it is an error.

    Returns:
        Where this process stands.

    Raises:
        ValueError: If an option is out of range, or ``srun`` gives no address to meet at.

    Example:
        >>> init_distributed()
        DistInfo(rank=0, world_size=1, local_rank=0, device='cpu', adopted=False)
    """
    check.one_of("backend", backend, ("auto", "nccl", "gloo"))
    check.positive("timeout_s", timeout_s)
    place = _place(os.environ)
    adopted = distributed.is_available() and distributed.is_initialized()
    with_gpu = torch.cuda.is_available()
    local = place.get("LOCAL_RANK", 0)
    device = f"cuda:{local % torch.cuda.device_count()}" if with_gpu else "cpu"
    if with_gpu:
        torch.cuda.set_device(device)
    if not adopted:
        if place["WORLD_SIZE"] == 1:
            return DistInfo(0, 1, 0, device, adopted=False)
        distributed.init_process_group(
            ("nccl" if with_gpu else "gloo") if backend == "auto" else backend,
            timeout=timedelta(seconds=timeout_s),
            rank=place["RANK"],
            world_size=place["WORLD_SIZE"],
        )
    rank, size = distributed.get_rank(), distributed.get_world_size()
    return DistInfo(rank, size, local, device, adopted=adopted)


def _place(environment: Mapping[str, str]) -> dict[str, int]:
    """Return rank, number of processes and local rank as torchrun or Slurm say them."""
    names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return {name: int(environment.get(name, "0")) for name in names}
    if "SLURM_STEP_ID" in environment and int(environment.get("SLURM_NTASKS", "1")) > 1:
        if "MASTER_ADDR" not in environment or "MASTER_PORT" not in environment:
            rule = "set under srun, e.g. export MASTER_ADDR=$(hostname) MASTER_PORT=29500"
            raise check.fail("MASTER_ADDR and MASTER_PORT", rule, "nothing")
        return {name: int(environment[theirs]) for name, theirs in names.items()}
    return {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}


def sum_across(values: Mapping[str, Number]) -> dict[str, Number]:
    """Return sums over all processes; whole numbers stay exact.

    Processes may hold different names, as when one of them had nothing to count. The sums are
    taken in the order of the ranks and are the same everywhere, bit for bit.

    Args:
        values: Numbers or tensors by name; a name has one shape everywhere.

    Returns:
        Sums by name, tensors on the CPU.

    Example:
        >>> sum_across({"cases": 3, "loss": 0.5})
        {'cases': 3, 'loss': 0.5}
    """
    own = {name: v.detach().cpu() if isinstance(v, Tensor) else v for name, v in values.items()}
    total: dict[str, Number] = {}
    for share in gather_objects(own):
        for name, value in share.items():
            total[name] = total[name] + value if name in total else value
    return total


class SumMetrics:
    """Sums of numbers over batches, and once at the end over all processes.

    Nothing is exchanged before ``reduce``, so that shares may differ in length
    (:func:`eval_indices`). Whole numbers are summed as they are, others in float64.

    Example:
        >>> import torch
        >>> sums = SumMetrics()
        >>> for correct, seen in ((3, 4), (1, 4)):
        ...     sums.add({"correct": correct, "seen": seen, "loss": torch.tensor(0.5)})
        >>> sums.reduce()
        {'correct': 4, 'seen': 8, 'loss': 1.0}
    """

    def __init__(self) -> None:
        self._sums: dict[str, Number] = {}

    def add(self, values: Mapping[str, Number]) -> None:
        """Add the numbers of one batch.

        Args:
            values: Numbers or tensors by name; a name has one shape in all batches.
        """
        for name, value in values.items():
            exact = _exact(value)
            self._sums[name] = self._sums[name] + exact if name in self._sums else exact

    def reduce(self) -> dict[str, Number]:
        """Return the sums over all processes; each must call it.

        Returns:
            Sums by name: numbers for single ones, tensors for others.
        """
        total = sum_across(self._sums)
        return {
            name: value.item() if isinstance(value, Tensor) and not value.ndim else value
            for name, value in total.items()
        }

    def reset(self) -> None:
        """Begin anew."""
        self._sums.clear()


def _exact(value: Number) -> Number:
    if not isinstance(value, Tensor):
        return value
    whole = not (value.is_floating_point() or value.is_complex())
    return value.detach().to(torch.int64 if whole else torch.float64)
