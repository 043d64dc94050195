"""Weight files that are whole, checked, and readable by torch alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from medkit._core import check

from ._checked import CheckpointError, Json, read_checked, write_checked
from ._commit import Checked, replacing
from ._sharded import cut_like

_WRAPPERS = ("module", "_orig_mod")


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What ``load_weights`` found.

    Attributes:
        loaded: Names of the tensors that went into the model.
        missing: Tensors of the model that the file lacks.
        unexpected: Tensors of the file that the model lacks.
        mismatched: Tensors whose shapes differ, with both shapes.
        metadata: What was stored beside the weights.
        verified: Whether the file carried a checksum, which was then right.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights({"weight": torch.ones(1, 2)}, f"{folder}/w.pt")
        ...     report = load_weights(f"{folder}/w.pt", torch.nn.Linear(2, 1), strict=False)
        >>> report.loaded, report.missing, report.verified
        (('weight',), ('bias',), True)
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    metadata: dict[str, Json]
    verified: bool


def save_weights(
    model: nn.Module | Mapping[str, Tensor],
    path: str | Path,
    *,
    metadata: Mapping[str, Json] | None = None,
) -> None:
    """Write the weights of a model to a file that is complete or absent.

    The file is written under another name in the same folder, brought to the disk and renamed, so
    that a crash, a kill or a full disk leaves the old file. It is an ordinary torch file:
    ``torch.load(path, weights_only=True)`` gives the names and CPU tensors. Its last bytes hold the
    metadata and a CRC-32 of everything before, which :func:`load_weights` checks. The prefixes of
    ``DistributedDataParallel`` and ``torch.compile`` are taken off the names.

    Args:
        model: A module, or tensors by name.
        path: The file; folders are made.
        metadata: Anything JSON can hold, up to 60 kB.

    Raises:
        OSError: If the file cannot be written; the old one is then intact.
        ValueError: If the metadata is too long.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/weights.pt"
        ...     save_weights(torch.nn.Linear(2, 1), path, metadata={"classes": 1})
        ...     print(load_weights(path, torch.nn.Linear(2, 1)).metadata)
        ...     print(list(torch.load(path, weights_only=True)))
        {'classes': 1}
        ['weight', 'bias']
    """
    with replacing(Path(path)) as stream:
        write_weights(stream, model, metadata=metadata)


def load_weights(
    path: str | Path,
    model: nn.Module,
    *,
    strict: bool = True,
    rename: Callable[[str], str | None] | None = None,
) -> LoadReport:
    """Read a weight file into a model, after checking that it is whole and that it fits.

    Nothing is executed from the file and nothing changes in the model before everything has been
    checked. Files of ``torch.save`` are read as well, without a checksum.

    Args:
        path: The file.
        model: Receives the weights, wrapped or not, on whatever device it is.
        strict: Whether every tensor must have its counterpart; else those that fit are loaded and
            the report says what was left.
        rename: Turns a name of the file into one of the model; None leaves that tensor out.

    Returns:
        The report.

    Raises:
        CheckpointError: If the file is damaged or incomplete, or does not fit a ``strict`` load.

    Example:
        >>> import tempfile, torch
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights({"old.weight": torch.ones(1, 2)}, f"{folder}/w.pt")
        ...     _ = load_weights(f"{folder}/w.pt", model, rename=lambda n: n.removeprefix("old."))
        >>> model.weight.tolist()
        [[1.0, 1.0]]
    """
    path = Path(path)
    value, metadata, verified = read_checked(path)
    stored = {plain_name(name): tensor for name, tensor in _tensors(path, value).items()}
    if rename is not None:
        renamed = ((rename(name), tensor) for name, tensor in stored.items())
        stored = {name: tensor for name, tensor in renamed if name is not None}
    report = match_weights(path, stored, model, strict=strict)
    put_weights({name: stored[name] for name in report.loaded}, model)
    return replace(report, metadata=metadata, verified=verified)


def match_weights(
    path: Path, stored: Mapping[str, Tensor], model: nn.Module, *, strict: bool
) -> LoadReport:
    """Compare tensors by plain name with those of a model; raise what does not fit."""
    own = {plain_name(name): tensor.shape for name, tensor in model.state_dict().items()}
    fitting = [name for name, tensor in stored.items() if tensor.shape == own.get(name)]
    shapes = (
        f"{name}: {tuple(tensor.shape)} in the file, {tuple(own[name])} in the model"
        for name, tensor in stored.items()
        if name in own and tensor.shape != own[name]
    )
    report = LoadReport(
        loaded=tuple(fitting),
        missing=tuple(name for name in own if name not in stored),
        unexpected=tuple(name for name in stored if name not in own),
        mismatched=tuple(shapes),
        metadata={},
        verified=False,
    )
    if strict and (report.missing or report.unexpected or report.mismatched):
        raise CheckpointError(f"{path} does not fit the model: {_complaint(report)}")
    if not fitting:
        raise CheckpointError(f"{path} shares no tensor with the model: {_complaint(report)}")
    return report


def put_weights(stored: Mapping[str, Tensor], model: nn.Module) -> None:
    """Put tensors by plain name into a model, cut as it is."""
    own = {plain_name(name): (name, tensor) for name, tensor in model.state_dict().items()}
    named = {own[name][0]: cut_like(tensor, own[name][1]) for name, tensor in stored.items()}
    model.load_state_dict(named, strict=False)


def write_weights(
    stream: Checked,
    model: nn.Module | Mapping[str, Tensor],
    *,
    metadata: Mapping[str, Json] | None = None,
) -> None:
    """Write weights, metadata and checksum to an open file."""
    state = model.state_dict() if isinstance(model, nn.Module) else model
    tensors = {plain_name(name): _compact(tensor) for name, tensor in state.items()}
    if len(tensors) != len(state):
        raise check.fail("model", "free of names that differ only in wrapper prefixes", list(state))
    write_checked(stream, tensors, metadata=metadata)


def plain_name(name: str) -> str:
    """Return a parameter's name without what DDP and ``torch.compile`` put into it."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts = parts[1:]
    return ".".join(part for part in parts if part != "_orig_mod")


def _compact(tensor: Tensor) -> Tensor:
    """Return the tensor on the CPU; a view is cut out of the larger storage behind it."""
    tensor = tensor.detach().cpu()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def _tensors(path: Path, value: object) -> dict[str, Tensor]:
    found = cast("dict[object, object]", value) if isinstance(value, dict) else {}
    if not found or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise CheckpointError(f"{path} does not hold tensors by name, as a state_dict does")
    return cast("dict[str, Tensor]", found)


def _complaint(report: LoadReport) -> str:
    found = (
        ("missing", report.missing),
        ("unexpected", report.unexpected),
        ("of another shape", report.mismatched),
    )
    return "; ".join(
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in found
        if names
    )
