"""Files that appear whole or not at all: where the readers and writers of data find them."""

from medkit._core.atomic import atomic_file

__all__ = ["atomic_file"]
