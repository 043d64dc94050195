"""What is said about the tensors of a file: all of them fit, or which do not."""

from collections.abc import Sequence
from typing import NamedTuple

from medkit.data import DataError

_SHOWN = 3


class WeightsReport(NamedTuple):
    """What became of a weight file whose every tensor found its place.

    Attributes:
        loaded: Names of the module's tensors that were filled, in the order of the module.
        skipped: Parts of the file that hold no weights of the network: the optimizer, states of
            random generators, layers without variables.
    """

    loaded: tuple[str, ...]
    skipped: tuple[str, ...]


class WeightsError(DataError):
    """A file's tensors are not those of the module; nothing was loaded.

    Args:
        module: The kind of module.
        path: The file.
        missing: Tensors of the module that the file lacks, named as the file would name them.
        unexpected: Tensors of the file that have no place in the module.
        misshapen: Tensors of another shape or type, with both.
        remedy: What the user can do about it.

    Example:
        >>> raise WeightsError("UNet", path="a.h5", unexpected=["layers/dense/vars/0"])
        Traceback (most recent call last):
        medkit.convert.WeightsError: a.h5: tensors must be those of UNet; got 1 left over
        (layers/dense/vars/0)
    """

    def __init__(
        self,
        module: str,
        *,
        path: str,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        misshapen: Sequence[str] = (),
        remedy: str = "",
    ) -> None:
        self.missing: tuple[str, ...] = tuple(missing)
        self.unexpected: tuple[str, ...] = tuple(unexpected)
        self.misshapen: tuple[str, ...] = tuple(misshapen)
        found = (
            ("missing", self.missing),
            ("left over", self.unexpected),
            ("of another shape or type", self.misshapen),
        )
        value = "; ".join(f"{len(names)} {what} ({_some(names)})" for what, names in found if names)
        rule = f"those of {module}"
        super().__init__(rule, path=path, field="tensors", value=value, remedy=remedy)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
