"""One model on several processes: whole on each (DDP), or cut between them (FSDP2)."""

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from medkit._core import check
from medkit._core.processes import in_several_processes

from ._modules import named_modules

_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
Select = Callable[[str, nn.Module], bool]


def wrap_model(
    model: nn.Module,
    *,
    strategy: Literal["auto", "ddp", "fsdp", "none"] = "auto",
    shard: Select | None = None,
    mixed_precision: Literal["bf16", "fp16"] | None = None,
    sync_bn: bool = False,
) -> nn.Module:
    """Let the processes of a run train one model: each step exchanges the gradients.

    Alone, the model comes back as it is, so that a script runs anywhere. With ``"ddp"`` every
    process holds the whole model. With ``"fsdp"`` (FSDP2's ``fully_shard``) each holds its part of
    every parameter, gradient and optimizer state, and the parts of a block are put together while
    it computes: for models that do not fit. Both end where one process with the whole batch would,
    but for rounding. Running statistics are those of the first process, with ``"ddp"`` and
    ``"fsdp"`` alike.

    A model that was cut is changed in place: make the optimizer afterwards, and call the model, to
    evaluate too, equally often in all processes.

    Args:
        model: On the device of this process.
        strategy: How; ``"auto"`` is ``"ddp"``, and ``"none"`` leaves the model as it is.
        shard: Says of each module, by its name and itself, whether it is a block that ``"fsdp"``
            puts together on its own, e.g. ``lambda name, module: isinstance(module, Block)``;
            what is in no block stays together. None makes the model one block, which saves the
            memory of optimizer states alone.
        mixed_precision: What ``"fsdp"`` computes and sends parameters in; they are kept, and
            gradients added up, in float32, and the model's outputs are float32. None leaves it to
            ``Stepper(amp=...)``.
        sync_bn: Whether batch normalisation takes its statistics over all processes (GPUs only).

    Returns:
        What to call, and what to give to :class:`Stepper`; :func:`unwrap` gives the model back.

    Raises:
        ValueError: If an option is out of range, ``shard`` chooses nothing, or an option of
            ``"fsdp"`` is given to another strategy.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1)
        >>> wrap_model(model) is model
        True

    References:
        Li et al., PyTorch Distributed, VLDB 2020.
        Zhao et al., PyTorch FSDP, VLDB 2023.
    """
    check.one_of("strategy", strategy, ("auto", "ddp", "fsdp", "none"))
    check.one_of("mixed_precision", mixed_precision, (*_PRECISIONS, None))
    if strategy != "fsdp" and (shard is not None or mixed_precision is not None):
        raise check.fail("strategy", "'fsdp' with shard or mixed_precision", strategy)
    blocks = _chosen(model, shard)
    if strategy == "none" or not in_several_processes():
        return model
    if sync_bn:
        convert = cast("Callable[[nn.Module], nn.Module]", nn.SyncBatchNorm.convert_sync_batchnorm)  # pyright: ignore[reportUnknownMemberType]  untyped
        model = convert(model)
        blocks = _chosen(model, shard)
    if strategy != "fsdp":
        return DistributedDataParallel(model)
    _cut(model, blocks, None if mixed_precision is None else _PRECISIONS[mixed_precision])
    return model


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside ``DistributedDataParallel`` and ``torch.compile``.

    Calling it exchanges nothing: use it to evaluate shares of unequal size. A model cut into
    shards (FSDP2) is its own inside, and calling it needs all processes.

    Args:
        model: Wrapped or not.

    Returns:
        The model inside.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1)
        >>> unwrap(torch.compile(model, backend="eager")) is model
        True
    """
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, DistributedDataParallel):
            inner = cast("nn.Module", model.module)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _chosen(model: nn.Module, shard: Select | None) -> list[nn.Module]:
    """Return the blocks, inner ones first."""
    if shard is None:
        return []
    blocks = [m for name, m in named_modules(model) if m is not model and shard(name, m)]
    if not blocks:
        raise check.fail("shard", "true for at least one module", type(model).__name__)
    return blocks[::-1]


def _cut(model: nn.Module, blocks: list[nn.Module], precision: torch.dtype | None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    narrow = None if precision is None else torch.float32
    inner = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=narrow)
    outer = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=narrow, output_dtype=narrow)
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True, mp_policy=inner)
    fully_shard(model, mesh=mesh, reshard_after_forward=True, mp_policy=outer)
    if any(True for _ in model.buffers()):
        model.register_forward_pre_hook(_take_buffers_of_first)


@torch.no_grad()
def _take_buffers_of_first(model: nn.Module, inputs: object) -> None:
    """Make running statistics those of the first process, as ``DistributedDataParallel`` does."""
    del inputs
    if not model.training:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for buffer in model.buffers():
        by_dtype.setdefault(buffer.dtype, []).append(buffer)
    for buffers in by_dtype.values():
        flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
        distributed.broadcast(flat, src=0)  # pyright: ignore[reportUnknownMemberType]  untyped
        parts = torch.split(flat, [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
