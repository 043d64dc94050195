"""Comparison of numbers with one table of tolerances."""

from collections.abc import Sequence
from typing import NamedTuple, SupportsFloat

import numpy as np
import torch
from torch import Tensor

Numbers = Tensor | np.ndarray | SupportsFloat | Sequence[SupportsFloat | Sequence[SupportsFloat]]


class Tolerance(NamedTuple):
    """Relative and absolute tolerance of one dtype."""

    rtol: float
    atol: float


TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float16: Tolerance(2e-3, 1e-4),
    torch.bfloat16: Tolerance(1.6e-2, 1e-3),
    torch.float32: Tolerance(1e-5, 1e-6),
    torch.float64: Tolerance(1e-9, 1e-12),
    torch.complex64: Tolerance(1e-5, 1e-6),
    torch.complex128: Tolerance(1e-9, 1e-12),
}
"""About a hundred roundings of each dtype; integers and booleans must be equal."""


def assert_close(
    actual: Numbers,
    expected: Numbers,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    message: str = "",
) -> None:
    """Raise ``AssertionError`` unless two arrays of numbers are equal to rounding.

    ``|actual - expected| <= atol + rtol * |expected|`` must hold everywhere, and shapes must be
    equal. The tolerance is that of the less precise of the two dtypes: float16 2e-3, bfloat16
    1.6e-2, float32 1e-5, float64 1e-9 relative; integers and booleans must be equal. NaN equals
    NaN, infinity equals infinity. Use it in every test that compares with a reference, so that a
    tolerance that is looser than rounding stands out in the call.

    Args:
        actual: What was computed: tensor, array or number, on any device.
        expected: What it should be.
        rtol: Relative tolerance; None takes it from the table.
        atol: Absolute tolerance; None takes it from the table, or 0 when only ``rtol`` is given.
        message: First words of the error, to say what is compared.

    Raises:
        AssertionError: If shapes differ or a value is out of tolerance; it gives the number of
            such values, the largest difference and where it is.

    Example:
        >>> import torch
        >>> assert_close(torch.tensor(1.0) / 3, 0.333333333)
        >>> assert_close(torch.tensor([1.0, 2.0]), [1.0, 2.5])
        Traceback (most recent call last):
        AssertionError: 1 of 2 values differ; largest at (1,): 2.0 where 2.5 is expected...
    """
    left, right = _as_tensor(actual), _as_tensor(expected)
    prefix = f"{message}: " if message else ""
    if left.shape != right.shape:
        raise AssertionError(
            f"{prefix}shape {tuple(left.shape)} where {tuple(right.shape)} is expected"
        )
    tolerance = _tolerance(left, right)
    if rtol is not None or atol is not None:
        tolerance = Tolerance(rtol or 0.0, atol or 0.0)
    wide = torch.complex128 if left.is_complex() or right.is_complex() else torch.float64
    a, e = left.to(wide), right.to(wide)
    wrong = ~torch.isclose(a, e, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True)
    if not wrong.any():
        return
    distance = torch.where(wrong, (a - e).abs().nan_to_num(torch.inf), -1.0)
    worst = int(distance.argmax())
    where = tuple(int(i) for i in np.unravel_index(worst, left.shape)) if left.ndim else ()
    raise AssertionError(
        f"{prefix}{int(wrong.sum())} of {left.numel()} values differ; largest at {where}: "
        f"{a.flatten()[worst].item()} where {e.flatten()[worst].item()} is expected "
        f"(rtol {tolerance.rtol:g}, atol {tolerance.atol:g})"
    )


def _as_tensor(numbers: Numbers) -> Tensor:
    if isinstance(numbers, Tensor):
        return numbers.detach().cpu()
    array = np.asarray(numbers)
    is_exact = isinstance(numbers, np.ndarray | np.generic) or array.dtype.kind in "biu"
    return torch.as_tensor(array.copy(order="C") if is_exact else array.astype(np.float64))


def _tolerance(left: Tensor, right: Tensor) -> Tolerance:
    known = [TOLERANCES[t.dtype] for t in (left, right) if t.dtype in TOLERANCES]
    return max(known, default=Tolerance(0.0, 0.0))
