"""What a wrong argument must do: raise an error that names it."""

from contextlib import AbstractContextManager

import pytest


def refuses(argument: str) -> AbstractContextManager[object]:
    """Expect an error that names the argument; with the shape checks on, theirs comes first."""
    return pytest.raises(
        (ValueError, TypeError),
        match=rf"(?s)^{argument} must be |typechecking parameter '{argument}'",
    )
