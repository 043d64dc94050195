"""Laws of the NIfTI reader over generated headers and damaged files; nibabel is the oracle."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medkit.data import DataError, Volume, read
from medkit.ops import affine_spacing, corner_indices, transform_points
from medkit.testing import assert_close
from unit.data.nifti_bytes import DATATYPE, SROW, affine_of, nifti

MM_PER_UNIT = {1: 1000.0, 3: 0.001}
VOXELS = np.random.default_rng(0).integers(-999, 999, (5, 6, 7)).astype("i2")
FILES = {
    "nifti-1": nifti(VOXELS),
    "nifti-2": nifti(VOXELS, version=2),
    "big endian": nifti(VOXELS, order=">"),
    "scaled, qform": nifti(
        VOXELS,
        {"scl_slope": 0.5, "scl_inter": 3, "sform_code": 0, "qform_code": 1, "quatern": (0, 0, 1)},
    ),
}
SAME = Volume(torch.as_tensor(VOXELS[None]), affine_of(SROW))


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Any valid file: type, byte order, version, dimensions, scaling, codes, orientation."""
    kind = draw(st.sampled_from(sorted(DATATYPE)))
    shape = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    voxels = generator.integers(0, 100, shape).astype(kind)
    vector = generator.normal(size=4)
    b, c, d = vector[1:] / np.linalg.norm(vector) * (1 if vector[0] >= 0 else -1)
    fields: dict[str, object] = {
        "scl_slope": draw(st.sampled_from([1.0, 0.0, float("nan"), 2.0, 0.5, -3.25])),
        "scl_inter": 0.0 if kind[0] == "c" else draw(st.sampled_from([0.0, 5.0, -1024.0, 0.1])),
        "sform_code": draw(st.integers(0, 5)),
        "qform_code": draw(st.integers(0, 5)),
        "xyzt_units": draw(st.sampled_from([0, 1, 2, 3, 10, 17])),
        "pixdim": (draw(st.sampled_from([-1, 0, 1])), *generator.uniform(0.1, 9, 3), 1, 1, 1, 1),
        "quatern": (b, c, d),
        "qoffset": tuple(generator.uniform(-200, 200, 3)),
        "srow": tuple(generator.normal(size=12) * 3),
    }
    version, order = draw(st.sampled_from([1, 2])), draw(st.sampled_from("<>"))
    return nifti(voxels, fields, version=version, order=order)


@settings(max_examples=300)
@given(headers(), st.booleans())
def test_any_header_means_what_nibabel_says(content: bytes, compress: bool) -> None:
    _compare_with_nibabel(gzip.compress(content, 1) if compress else content, must_be_read=True)


@st.composite
def straight_headers(draw: st.DrawFn) -> bytes:
    """Valid 3-D files that ITK can represent: a rotation, one code, a unit of length."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["u1", "i2", "i4", "f4", "f8", "u2"]))
    voxels = generator.integers(0, 100, draw(st.tuples(*[st.integers(2, 5)] * 3))).astype(kind)
    spacing = generator.uniform(0.5, 5, 3)  # ITK takes it from pixdim even where it uses the sform
    rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0] * spacing
    vector = generator.normal(size=4)
    b, c, d = vector[1:] / np.linalg.norm(vector) * np.sign(vector[0])
    sform = draw(st.booleans())
    fields: dict[str, object] = {
        "scl_slope": draw(st.sampled_from([1.0, 0.0, 2.0, 0.5])),
        "sform_code": draw(st.integers(1, 5)) if sform else 0,
        "qform_code": 0 if sform else draw(st.integers(1, 5)),
        "xyzt_units": draw(st.sampled_from([0, 1, 2, 3, 10])),
        "pixdim": (draw(st.sampled_from([-1, 1])), *spacing, 1, 1, 1, 1),
        "quatern": (b, c, d),
        "qoffset": tuple(generator.uniform(-200, 200, 3)),
        "srow": tuple(np.hstack([rotation, generator.uniform(-200, 200, (3, 1))]).ravel()),
    }
    order = draw(st.sampled_from("<>"))
    return nifti(voxels, fields, order=order)


@settings(max_examples=150)
@given(straight_headers())
def test_any_straight_header_means_what_itk_says(content: bytes) -> None:
    sitk = pytest.importorskip("SimpleITK")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "v.nii"
        path.write_bytes(content)
        v, image = read(path), sitk.ReadImage(path)

    assert_close(v.data[0].double(), sitk.GetArrayFromImage(image).astype("f8"))
    for d, h, w in corner_indices(v.spatial_shape).tolist():
        left, posterior, superior = image.TransformIndexToPhysicalPoint((w, h, d))
        ours = transform_points(v.affine, np.array([d, h, w]))
        assert_close([-left, -posterior, superior], ours, atol=1e-4 * max(1.0, *np.abs(ours)))


@settings(max_examples=400)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 543), st.integers(0, 255))
@example("nifti-1", 123, 1)
@example("nifti-1", 40, 4)
def test_an_edited_header_means_what_nibabel_says_or_is_refused(
    name: str, position: int, value: int
) -> None:
    changed = bytearray(FILES[name])
    changed[position] = value

    _compare_with_nibabel(bytes(changed), must_be_read=False)


@settings(max_examples=300)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_a_shortened_file_is_refused(name: str, data: st.DataObject) -> None:
    content = FILES[name]
    cut = data.draw(st.integers(0, len(content) - 1))

    with pytest.raises(DataError):
        _read(content[:cut])


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Ways to damage a file: change, drop, insert or double some bytes, or cut the end."""
    where = draw(st.floats(0, 1, exclude_max=True))
    length = draw(st.integers(1, 4))
    how = draw(st.sampled_from(["change", "change", "drop", "insert", "double", "cut"]))
    new = draw(st.binary(min_size=length, max_size=length))

    def damage(content: bytes) -> bytes:
        at = int(where * len(content))
        before, there, after = content[:at], content[at : at + length], content[at + length :]
        return {
            "change": before + new[: len(there)] + after,
            "drop": before + after,
            "insert": before + new + there + after,
            "double": before + there + there + after,
            "cut": before,
        }[how]

    return damage


@settings(max_examples=600)
@given(damages(), st.sampled_from([0, 1, 9]), st.sampled_from([64, 100_000]))
def test_a_damaged_gzip_file_is_the_original_or_refused(
    damage: Callable[[bytes], bytes], level: int, member: int
) -> None:
    plain = FILES["nifti-1"]
    parts = [plain[at : at + member] for at in range(0, len(plain), member)]
    content = b"".join(gzip.compress(part, level, mtime=0) for part in parts)

    try:
        v = _read(damage(content))
    except DataError:
        return
    assert torch.equal(v.data, SAME.data)
    assert np.array_equal(v.affine, SAME.affine)


LIMITED = """
import pathlib, resource, sys, time
from medkit.data import DataError, read
import numpy, torch
torch.zeros(9).sum()
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    start = time.perf_counter()
    try:
        read(path)
    except DataError:
        pass
    assert time.perf_counter() - start < 2, path
print("survived")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_damage_never_costs_a_gibibyte_or_two_seconds(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    zeros = nifti(np.zeros((64, 64, 64), "i2"))
    for number in range(400):
        name = sorted(FILES)[number % 4]
        content = bytearray(FILES[name] if number % 3 else zeros)
        for position in generator.integers(0, 352, 1 + number % 3):
            content[position] = generator.integers(256)
        compress = gzip.compress if number % 2 else bytes
        (tmp_path / f"{number:03}.nii").write_bytes(compress(bytes(content)))
    declared = {"dim": (3, 1500, 1500, 1500, 1, 1, 1, 1)}
    bomb = gzip.compress(nifti(VOXELS, declared) + bytes(2**24))
    (tmp_path / "bomb.nii.gz").write_bytes(bomb)

    command = [sys.executable, "-c", LIMITED, tmp_path]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)

    assert result.stdout == "survived\n", result.stderr


def _compare_with_nibabel(content: bytes, *, must_be_read: bool) -> None:
    """Fail if ``content`` is read otherwise than by nibabel, medkit's decisions set aside."""
    nibabel = pytest.importorskip("nibabel")
    try:
        v = _read(content)
    except DataError:
        assert not must_be_read
        return
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    two = 540 in (int.from_bytes(plain[:4], "little"), int.from_bytes(plain[:4], "big"))
    try:
        image = (nibabel.Nifti2Image if two else nibabel.Nifti1Image).from_bytes(plain)
    except ValueError as error:  # refuses what float32 rounding can do to a unit quaternion
        if "w2 should be positive" not in str(error):
            raise
        return
    header = image.header
    theirs = np.asarray(image.dataobj).reshape(*v.spatial_shape[::-1], v.shape[0])
    expected = np.ascontiguousarray(theirs.transpose(3, 2, 1, 0))
    assert_close(v.data.to(torch.complex128), expected.astype("c16"), rtol=1e-6)
    if header["sform_code"] <= 0 and header["qform_code"] <= 0:
        assert [notice.code for notice in v.warnings][-1:] == ["no_orientation"]
        return  # nibabel centres the image and turns x round; medkit makes nothing up
    matrix = image.affine.copy()
    matrix[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1)  # which nibabel leaves alone
    corners = corner_indices(v.spatial_shape)
    expected_corners = transform_points(matrix[:, [2, 1, 0, 3]], corners)
    distance = transform_points(v.affine, corners) - expected_corners
    size = np.abs(matrix).max() + max(affine_spacing(v.affine))
    assert np.abs(distance).max() <= 1e-3 * size


def _read(content: bytes) -> Volume:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "v.nii"
        path.write_bytes(content)
        return read(path)
