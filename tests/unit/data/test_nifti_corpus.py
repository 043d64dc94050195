"""Odd files give the right voxels at the right places, or a named error, at once."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from medkit.data import DataError, read
from medkit.testing import assert_close
from unit.data.nifti_corpus import Bad, Good, bad, good

GOOD = {case.name: case for case in good()}
BAD = {case.name: case for case in bad()}


@pytest.fixture(params=["isal", "zlib"], autouse=True)
def _engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every case with the fast inflater and with the standard library's."""
    if request.param == "isal":
        pytest.importorskip("isal")
    else:
        monkeypatch.setattr("medkit._core.optional.is_available", lambda _: False)


def test_there_are_cases_enough() -> None:
    assert len(GOOD) + len(BAD) >= 120


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_odd_file_is_read_exactly(case: Good, tmp_path: Path) -> None:
    path = _save(case, tmp_path)

    volume = read(path)

    expected = torch.as_tensor(np.ascontiguousarray(case.voxels))
    assert volume.data.dtype == expected.dtype
    assert torch.equal(volume.data.nan_to_num(12345), expected.nan_to_num(12345))
    assert_close(volume.affine.copy(), case.affine, rtol=1e-6, atol=1e-5 * min(volume.spacing))
    assert tuple(notice.code for notice in volume.warnings) == case.notices
    assert volume.source == str(path)


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_file_is_refused_by_name(case: Bad, tmp_path: Path) -> None:
    path = _save(case, tmp_path)
    start = time.perf_counter()

    with pytest.raises(DataError) as caught:
        read(path, limits=case.limits)

    assert type(caught.value) is case.error
    assert str(caught.value).startswith(f"{path}: ")
    assert case.words in str(caught.value)
    assert time.perf_counter() - start < 1


def _save(case: Good | Bad, folder: Path) -> Path:
    path = folder / f"case{case.suffix}"
    path.write_bytes(case.content)
    return path
