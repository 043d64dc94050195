"""What tests of data share."""

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture
def unhooked() -> Iterator[None]:
    """Turn the shape hook off, so that a wrong argument meets the library's own check."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
