"""Where a run begins: anew, or where it stopped."""

from collections.abc import Mapping

from medkit._core import check

from ._checkpoint import CheckpointManager
from ._stateful import Stateful


def begin(
    checkpoints: CheckpointManager | None, parts: Mapping[str, Stateful], *, resume: bool
) -> bool:
    """Go on from the latest checkpoint where asked, and say whether there was one.

    Two runs in one folder would be mixed: without ``resume`` it must be empty.
    """
    if checkpoints is None:
        if resume:
            raise check.fail("checkpoints", "given to resume", checkpoints)
        return False
    checkpoints.register(parts)
    if resume:
        try:
            checkpoints.restore()
        except FileNotFoundError:
            return False
        return True
    if checkpoints.latest() is not None:
        raise check.fail("resume", f"True to go on with the run in {checkpoints.root}", resume)
    return False
