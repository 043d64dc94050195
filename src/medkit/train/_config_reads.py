"""Shows that every key of a configuration has been read."""

from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import TypeVar, cast

from medkit._core import check

from ._config_keys import entries, leaves

Config = TypeVar("Config")


@contextmanager
def all_keys_read(config: Config, *, unused: Collection[str] = ()) -> Generator[Config, None, None]:
    """Give a configuration that notes which keys are read, and refuse unread ones at the end.

    A key that nothing reads has no effect, however it is set. Build everything inside the block
    from the configuration it gives. Keys that are None are not set and need no reader; ``to_dict``,
    ``fingerprint``, ``override`` and printing read nothing. An error inside passes unchanged.

    Args:
        config: A :class:`TrainConfig`, or a dataclass of your own that may hold one: its keys count
            by dotted name, e.g. ``"train.optim.lr"``.
        unused: Keys that have no use in this run, e.g. ``"data.patch_size"``.

    Yields:
        The same configuration under watch.

    Raises:
        TypeError: If ``config`` is no dataclass.
        ValueError: At the end of the block, if keys are unread or one of ``unused`` does not exist.

    Example:
        >>> from medkit.train import OptimConfig
        >>> with all_keys_read(OptimConfig(), unused=["name", "betas", "accumulate"]) as config:
        ...     print(config.lr)
        Traceback (most recent call last):
        ValueError: keys of the configuration must be read or named in unused; got weight_decay, ...
    """
    if not is_dataclass(config):
        raise TypeError(f"config must be a dataclass; got {type(config).__name__}")
    known = [name for name, _ in leaves(config)]
    if unknown := [name for name in unused if name not in known]:
        raise check.fail("unused", f"made of {', '.join(known)}", ", ".join(unknown))
    reads: set[str] = set()
    yield _watched(config, reads, prefix="")
    unread = [
        name
        for name, value in leaves(config)
        if value is not None and name not in reads and name not in unused
    ]
    if unread:
        raise check.fail("keys of the configuration", "read or named in unused", ", ".join(unread))


def _watched(config: Config, reads: set[str], *, prefix: str) -> Config:
    """Return a copy, of a subclass of the same name, that notes the fields read from it."""
    kind = type(config)
    names = {field.name for field in fields(cast("type", config))}

    def read(self: object, name: str) -> object:
        if name in names:
            reads.add(prefix + name)
        return object.__getattribute__(self, name)

    def represent(_: object) -> str:
        return repr(config)

    def equal(_: object, other: object) -> bool:
        return config == other

    def digest(_: object) -> int:
        return hash(config)

    special = {"__getattribute__": read, "__repr__": represent, "__eq__": equal, "__hash__": digest}
    copy = object.__new__(type(kind.__name__, (kind,), special))
    vars(copy).update(
        (name, _watched(value, reads, prefix=f"{prefix}{name}.") if is_dataclass(value) else value)
        for name, value in entries(config).items()
    )
    return cast("Config", copy)
