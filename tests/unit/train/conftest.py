"""What the training tests share."""

from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture
def unhooked() -> Iterator[None]:
    """Let wrong types through to the library's own checks, which users without the hook see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
