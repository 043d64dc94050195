"""Comparisons whose messages say what was compared and by how much it is off."""

from torch import Tensor

from ._close import assert_close
from ._contract import Violation


def same(
    actual: Tensor, expected: Tensor, what: str, *, rtol: float | None = None, atol: float = 0.0
) -> None:
    """Raise unless two tensors are equal to rounding; give the ratio where both are one number."""
    try:
        assert_close(actual, expected, rtol=rtol, atol=atol if rtol else None, message=what)
    except AssertionError as error:
        if actual.shape != expected.shape or actual.numel() != 1:
            raise Violation(str(error)) from error
        a, e = float(actual), float(expected)
        ratio = f", {a / e:.4g} times it" if e else ""
        raise Violation(f"{what}: {a:.7g} where {e:.7g} is expected{ratio}") from error


def expect(holds: bool | Tensor, message: str) -> None:
    """Raise ``Violation`` with a message unless a condition holds; also under ``-O``."""
    if not holds:
        raise Violation(message)


def finite(values: Tensor, what: str) -> None:
    """Raise unless every value is finite."""
    broken = int((~values.isfinite()).sum())
    expect(not broken, f"{what}: {broken} of {values.numel()} values are NaN or infinite")


def norm(values: Tensor) -> float:
    """Return the Euclidean norm of all values, computed in float64."""
    return float(values.detach().double().square().sum().sqrt())


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of what is expected, in float64."""
    return norm(actual.double() - expected.double()) / max(norm(expected), 1e-300)
