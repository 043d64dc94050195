"""Contract checks that a part, yours or ours, can be held to."""

from medkit.testing._close import assert_close

__all__ = ["assert_close"]
