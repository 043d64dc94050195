"""What a reader has to say about a file that it could read."""

from typing import NamedTuple


class Notice(NamedTuple):
    """Something about a file that its reader resolved by a stated rule.

    Args:
        code: A fixed word to test for, e.g. ``"no_orientation"``.
        message: The same for people.

    Example:
        >>> Notice("no_orientation", "sform_code and qform_code are 0").code
        'no_orientation'
    """

    code: str
    message: str


NO_ORIENTATION = "no_orientation"
"""Code of the notice that a file says nothing about the directions of its axes."""
