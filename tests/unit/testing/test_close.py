"""assert_close compares to rounding, and says what differs, by how much and where."""

import numpy as np
import pytest
import torch

from medkit.testing import assert_close


@pytest.mark.parametrize(
    ("dtype", "inside", "outside"),
    [
        (torch.float16, 1e-3, 5e-3),
        (torch.bfloat16, 1e-2, 5e-2),
        (torch.float32, 5e-6, 5e-5),
        (torch.float64, 5e-10, 5e-9),
        (torch.complex64, 5e-6, 5e-5),
    ],
)
def test_tolerance_follows_the_dtype(dtype: torch.dtype, inside: float, outside: float) -> None:
    expected = torch.ones(3, dtype=dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64

    assert_close(torch.ones(3, dtype=wide) + inside, expected)
    with pytest.raises(AssertionError, match="3 of 3 values differ"):
        assert_close(torch.ones(3, dtype=wide) + outside, expected)


def test_integers_must_be_equal() -> None:
    assert_close(torch.tensor([1, 2]), [1, 2])
    with pytest.raises(AssertionError, match=r"largest at \(1,\): 2\.0 where 3\.0 is expected"):
        assert_close(torch.tensor([1, 2]), [1, 3])


def test_the_largest_difference_is_named_with_its_place() -> None:
    actual = torch.zeros(2, 3)
    actual[1, 2] = 0.5
    actual[0, 1] = 0.1

    with pytest.raises(AssertionError, match=r"first: 2 of 6 values differ; largest at \(1, 2\)"):
        assert_close(actual, torch.zeros(2, 3), message="first")


def test_nan_equals_nan_and_nothing_else() -> None:
    assert_close(torch.tensor([torch.nan, torch.inf]), [np.nan, np.inf])
    with pytest.raises(AssertionError, match=r"1 of 2 values differ; largest at \(0,\): nan"):
        assert_close(torch.tensor([torch.nan, 1.0]), [0.0, 1.0])


def test_shapes_must_be_equal() -> None:
    with pytest.raises(AssertionError, match=r"shape \(2, 1\) where \(2,\) is expected"):
        assert_close(torch.zeros(2, 1), torch.zeros(2))


def test_arrays_numbers_and_tensors_compare() -> None:
    assert_close(np.ones((2, 2))[:, ::-1], torch.ones(2, 2))
    assert_close(1.0, torch.tensor(1.0))


def test_given_tolerances_replace_the_table() -> None:
    assert_close(1.0, 1.05, rtol=0.1)
    assert_close(1.0, 1.05, atol=0.1)
    with pytest.raises(AssertionError):
        assert_close(1e-9, 0.0, rtol=0.1)
