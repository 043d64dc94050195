"""Odd DICOM series give the right voxels at the right places, or a named error, at once."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from medkit.data import DataError, read, scan
from medkit.testing import assert_close

pydicom = pytest.importorskip("pydicom")

from unit.data import dicom_files as files  # noqa: E402
from unit.data.dicom_corpus import Bad, Good, bad, good, series  # noqa: E402
from unit.data.volumes import world  # noqa: E402

GOOD = {case.name: case for case in good()}
BAD = {case.name: case for case in bad()}


def test_there_are_cases_enough() -> None:
    assert len(GOOD) + len(BAD) >= 90


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_odd_series_is_read_exactly(case: Good, tmp_path: Path) -> None:
    folder = tmp_path / "series"
    case.write(folder)

    v = read(folder)

    expected = torch.as_tensor(np.ascontiguousarray(case.voxels))
    assert v.data.dtype == expected.dtype
    assert torch.equal(v.data, expected)
    assert tuple(notice.code for notice in v.warnings) == case.notices
    rows, columns = v.shape[2:]
    for d, ds in enumerate(case.planes or series()):
        tolerance = 0.01 if case.name.startswith(("jitter", "directions")) else 1e-3
        for h, w in ((0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)):
            assert_close(world(v, (d, h, w)), files.place(ds, h, w), atol=tolerance)


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_scan_tells_what_read_will_give(case: Good, tmp_path: Path) -> None:
    case.write(tmp_path / "series")

    (found,) = scan(tmp_path)

    v = read(tmp_path / "series")
    assert found.spatial_shape == v.spatial_shape
    assert found.spacing == v.spacing
    assert found.id == found.uid == "1.2.2"
    assert found.description == "Thorax"
    assert {p.code for p in found.problems} <= {n.code for n in v.warnings}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_series_is_refused_by_name(case: Bad, tmp_path: Path) -> None:
    folder = tmp_path / "series"
    case.write(folder)
    start = time.perf_counter()

    with pytest.raises(DataError) as caught:
        read(folder)

    assert type(caught.value) is case.error, caught.value
    assert str(caught.value).startswith(str(folder))
    assert case.words in str(caught.value)
    assert time.perf_counter() - start < 1
