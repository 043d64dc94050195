"""A volume predicted by windows: as MONAI, medicai and a plain NumPy loop do it, but in float32."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medkit.inference import sliding_window_inference
from medkit.ops import gaussian_importance
from medkit.testing import assert_close

GOLDEN = Path(__file__).parents[2] / "golden" / "swi" / "swi.npz"


def ramp(size: int, axis: int, ndim: int) -> Tensor:
    return torch.linspace(-1, 1, size).reshape([-1 if i == axis else 1 for i in range(ndim)])


def positional(windows: Tensor) -> Tensor:
    """Scores that depend on the place inside the window, so that blending shows."""
    first, last = (ramp(windows.shape[axis], axis, windows.ndim) for axis in (2, windows.ndim - 1))
    return torch.cat([windows + first, windows * last, first * last * torch.ones_like(windows)], 1)


def medicai_predictor(windows: Tensor) -> Tensor:
    depth, height = (ramp(windows.shape[axis], axis, 5) for axis in (2, 3))
    product = (depth * height).expand_as(windows)
    return torch.cat([windows + depth, windows * height, product], 1)


@pytest.mark.parametrize(("tag", "importance"), [("a", "gaussian"), ("b", "constant")])
def test_equals_medicai(tag: str, importance: str) -> None:
    with np.load(GOLDEN) as stored:
        x, y = (np.moveaxis(stored[f"{tag}/{name}"], -1, 1) for name in "xy")
    ours = sliding_window_inference(
        torch.from_numpy(x), medicai_predictor, roi_size=16, importance=importance, batch_size=4
    )

    assert_close(ours, y, rtol=1e-6, atol=1e-6)


class Case(NamedTuple):
    shape: tuple[int, ...]
    roi_size: tuple[int, ...]
    overlap: float | tuple[float, ...] = 0.5
    batch_size: int = 1
    padding_mode: str = "constant"
    padding_value: float = 0.0


CASES = [
    Case((1, 1, 40, 36, 50), (16, 16, 16)),
    Case((2, 2, 33, 47), (16, 8), (0.25, 0.7), 3),
    Case((1, 1, 24, 20, 30), (24, 9, 16), (0.9, 0.1, 0.6), 4),
    Case((2, 1, 10, 30, 7), (16, 12, 9), 0.3, 5, "constant", -1.5),
    Case((1, 2, 9, 21, 10), (12, 8, 13), 0.5, 2, "reflect"),
    Case((1, 1, 5, 9), (16, 16), 0.5, 1, "replicate"),
    Case((1, 1, 9, 30), (16, 16), 0.0, 2, "circular"),
]


@pytest.mark.parametrize("importance", ["gaussian", "constant"])
@pytest.mark.parametrize("case", CASES)
def test_equals_monai(case: Case, importance: str) -> None:
    inferers = pytest.importorskip("monai.inferers")
    x = torch.rand(case.shape) - 0.5
    theirs = inferers.sliding_window_inference(
        x,
        case.roi_size,
        case.batch_size,
        positional,
        overlap=case.overlap,
        mode=importance,
        padding_mode=case.padding_mode,
        cval=case.padding_value,
    )
    ours = sliding_window_inference(
        x,
        positional,
        roi_size=case.roi_size,
        overlap=case.overlap,
        importance=importance,
        batch_size=case.batch_size,
        padding_mode=case.padding_mode,
        padding_value=case.padding_value,
    )

    assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_equals_monai_with_a_network() -> None:
    inferers = pytest.importorskip("monai.inferers")
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 1)).eval()
    x = torch.randn(1, 1, 30, 25, 28)
    theirs = inferers.sliding_window_inference(
        x, (16, 16, 16), 2, network, overlap=0.5, mode="gaussian"
    )
    ours = sliding_window_inference(x, network, roi_size=16, batch_size=2)

    assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-6)


def by_loops(x: np.ndarray, roi: tuple[int, ...], overlap: float, weight: np.ndarray) -> np.ndarray:
    """The definition, in float64, one window and one voxel weight at a time."""
    total, covered = np.zeros(x.shape), np.zeros(x.shape)
    starts = []
    for size, extent in zip(x.shape[2:], roi, strict=True):
        step = max(int(extent * (1 - overlap)), 1)
        places = [0]
        while places[-1] + extent < size:
            places.append(min(places[-1] + step, size - extent))
        starts.append(places)
    for corner in itertools.product(*starts):
        box = (..., *(slice(a, a + n) for a, n in zip(corner, roi, strict=True)))
        window = x[box]
        total[box] += weight * (window * window + np.arange(roi[-1]))
        covered[box] += weight
    return total / covered


@settings(max_examples=30)
@given(
    size=st.tuples(st.integers(6, 20), st.integers(6, 20)),
    roi=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    batch_size=st.integers(1, 7),
)
def test_equals_plain_loops_in_float64(
    size: tuple[int, int], roi: tuple[int, int], overlap: float, batch_size: int
) -> None:
    x = np.random.default_rng(sum(size)).standard_normal((2, 1, *size))
    weight = np.random.default_rng(1).uniform(0.1, 1, roi)
    ours = sliding_window_inference(
        torch.from_numpy(x),
        lambda windows: windows**2 + torch.arange(roi[-1]),
        roi_size=roi,
        overlap=overlap,
        importance=torch.from_numpy(weight),
        batch_size=batch_size,
    )

    assert ours.dtype == torch.float64
    assert_close(ours, by_loops(x, roi, overlap, weight))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_nothing_to_blending(dtype: torch.dtype) -> None:
    x = torch.randn(1, 1, 40, 40, 40).to(dtype)
    y = sliding_window_inference(x, torch.clone, roi_size=16, overlap=0.75)

    assert y.dtype == torch.float32
    assert_close(y, x.float(), rtol=1e-6, atol=1e-6)


def test_monai_still_accumulates_half_precision_in_half_precision() -> None:
    inferers = pytest.importorskip("monai.inferers")
    x = torch.randn(1, 1, 40, 40, 40).bfloat16()
    y = inferers.sliding_window_inference(
        x, (16, 16, 16), 1, torch.clone, overlap=0.75, mode="gaussian"
    )

    assert (y.float() - x.float()).abs().max() > 0.02


def test_half_precision_scores_of_a_float_volume_are_summed_in_float32() -> None:
    x = torch.rand(1, 1, 30, 30)
    y = sliding_window_inference(x, lambda windows: windows.half(), roi_size=8, overlap=0.75)

    assert y.dtype == torch.float32
    assert_close(y, x.half().float(), rtol=1e-6)


def test_integer_volumes_reach_the_predictor_as_they_are() -> None:
    x = torch.randint(0, 255, (1, 1, 5, 20), dtype=torch.uint8)
    seen: list[torch.dtype] = []

    def predictor(windows: Tensor) -> Tensor:
        seen.append(windows.dtype)
        return windows.float()

    y = sliding_window_inference(x, predictor, roi_size=8, padding_value=7.0)

    assert set(seen) == {torch.uint8}
    assert y.dtype == torch.float32
    assert_close(y, x.float())


class Heads(NamedTuple):
    coarse: Tensor
    fine: Tensor


@pytest.mark.parametrize(
    "pack",
    [
        lambda a, b: (a, b),
        lambda a, b: [a, b],
        lambda a, b: {"coarse": a, "fine": b},
        Heads,
    ],
)
def test_several_outputs_come_back_in_their_container(
    pack: Callable[[Tensor, Tensor], object],
) -> None:
    x = torch.rand(2, 1, 12, 17)
    y = sliding_window_inference(
        x, lambda w: pack(w * 2, torch.cat([w, -w], 1).double()), roi_size=8, batch_size=3
    )
    expected = pack(x * 2, torch.cat([x, -x], 1).double())
    parts = y.values() if isinstance(y, dict) else y
    whole = expected.values() if isinstance(expected, dict) else expected

    assert type(y) is type(expected)
    assert [part.dtype for part in parts] == [torch.float32, torch.float64]
    for part, full in zip(parts, whole, strict=True):
        assert_close(part, full, rtol=1e-6)


def test_batches_may_hold_windows_of_several_volumes() -> None:
    x = torch.rand(3, 1, 10, 10)
    sizes: list[int] = []

    def predictor(windows: Tensor) -> Tensor:
        sizes.append(len(windows))
        return positional(windows)

    y = sliding_window_inference(x, predictor, roi_size=8, batch_size=5)
    one_by_one = torch.cat(
        [sliding_window_inference(volume[None], positional, roi_size=8) for volume in x]
    )

    assert sizes == [5, 5, 2]
    assert_close(y, one_by_one, rtol=1e-6)


def test_neither_the_input_nor_its_windows_are_touched_by_an_in_place_predictor() -> None:
    x = torch.rand(1, 1, 20, 20)
    before = x.clone()
    y = sliding_window_inference(x, lambda windows: windows.mul_(3), roi_size=8)

    assert torch.equal(x, before)
    assert_close(y, 3 * before, rtol=1e-6)


def test_a_batch_dependent_layout_is_accepted() -> None:
    x = torch.rand(1, 1, 20, 24)
    transposed = x.mT.contiguous().mT

    assert_close(
        sliding_window_inference(transposed, positional, roi_size=8),
        sliding_window_inference(x, positional, roi_size=8),
    )


def test_a_window_larger_than_the_volume_is_centred_on_it() -> None:
    seen: list[Tensor] = []

    def predictor(windows: Tensor) -> Tensor:
        seen.append(windows.clone())
        return windows

    y = sliding_window_inference(torch.ones(1, 1, 3, 4), predictor, roi_size=6, padding_value=-1.0)

    expected = -torch.ones(6, 6)
    expected[1:4, 1:5] = 1
    assert y.shape == (1, 1, 3, 4)
    assert torch.equal(seen[0][0, 0], expected)


def test_records_no_gradient() -> None:
    weight = torch.ones(1, requires_grad=True)
    y = sliding_window_inference(torch.rand(1, 1, 9, 9), lambda w: w * weight, roi_size=8)

    assert not y.requires_grad


def test_scores_are_summed_on_the_device_asked_for() -> None:
    x = torch.rand(1, 1, 9, 9)
    on_cpu = sliding_window_inference(x, torch.clone, roi_size=8, device="cpu")
    on_meta = sliding_window_inference(x, torch.clone, roi_size=8, device="meta")

    assert on_cpu.device.type == "cpu"
    assert on_meta.device.type == "meta"


def test_own_importance_is_used() -> None:
    x = torch.rand(1, 1, 30, 30)
    weight = gaussian_importance((8, 8))

    assert_close(
        sliding_window_inference(x, positional, roi_size=8, importance=weight),
        sliding_window_inference(x, positional, roi_size=8),
    )


def test_progress_bar_counts_the_calls(capsys: pytest.CaptureFixture[str]) -> None:
    sliding_window_inference(torch.rand(1, 1, 16, 8), torch.clone, roi_size=8, progress=True)

    assert "3/3" in capsys.readouterr().err


def test_no_progress_bar_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    sliding_window_inference(torch.rand(1, 1, 16, 8), torch.clone, roi_size=8)

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roi_size": (8, 8, 8)}, "roi_size must be one value or 2"),
        ({"overlap": 1.0}, r"overlap must be in \[0, 1\); got 1.0"),
        (
            {"importance": torch.ones(8, 7)},
            r"importance must be positive and of the window's shape",
        ),
        ({"importance": torch.zeros(8, 8)}, "importance must be positive"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
    ],
)
def test_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sliding_window_inference(torch.ones(1, 1, 9, 9), torch.clone, **{"roi_size": 8} | options)


@pytest.mark.parametrize(("option", "value"), [("importance", "hann"), ("padding_mode", "mirror")])
def test_refuses_a_word_it_does_not_know(option: str, value: str) -> None:
    # With shape checks on, the annotation refuses first, in its own words.
    with pytest.raises((ValueError, TypeError), match=rf"{option}(.|\n)*'{value}'"):
        sliding_window_inference(
            torch.ones(1, 1, 7, 9), torch.clone, **{"roi_size": 8, option: value}
        )


@pytest.mark.parametrize("shape", [(1, 4), (0, 1, 8, 8)])
def test_refuses_inputs_that_hold_no_volume(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"inputs must be \(batch, channel, \*spatial\)"):
        sliding_window_inference(torch.ones(shape), torch.clone, roi_size=8)


@pytest.mark.parametrize(("mode", "size"), [("reflect", 4), ("circular", 3)])
def test_refuses_to_mirror_more_than_there_is(mode: str, size: int) -> None:
    with pytest.raises(ValueError, match="padding_mode must be 'constant' or 'replicate'"):
        sliding_window_inference(
            torch.ones(1, 1, size, 9), torch.clone, roi_size=(12, 8), padding_mode=mode
        )


@pytest.mark.parametrize(
    "predictor",
    [
        lambda windows: windows[..., ::2],
        lambda windows: windows[:1],
        lambda windows: windows.mean(dim=(2, 3)),
    ],
)
def test_refuses_a_predictor_that_changes_the_windows(
    predictor: Callable[[Tensor], Tensor],
) -> None:
    with pytest.raises(ValueError, match=r"output must be of shape \(2, any, 8, 8\)"):
        sliding_window_inference(torch.ones(1, 1, 9, 9), predictor, roi_size=8, batch_size=2)


def test_refuses_coarser_heads_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"got shape \(1, 1, 4, 4\); .*pass the network itself$"):
        sliding_window_inference(
            torch.ones(1, 1, 9, 9), lambda w: [w, w[..., ::2, ::2]], roi_size=8
        )


@pytest.mark.parametrize(
    ("predictor", "got"),
    [(lambda w: w.argmax(1, keepdim=True), "torch.int64"), (lambda _: None, "NoneType")],
)
def test_refuses_a_predictor_without_scores(
    predictor: Callable[[Tensor], Tensor], got: str
) -> None:
    with pytest.raises(TypeError, match=f"floating-point tensors; got {got}"):
        sliding_window_inference(torch.ones(1, 1, 9, 9), predictor, roi_size=8)


def changing(*predictions: Callable[[Tensor], object]) -> Callable[[Tensor], object]:
    """Predict by one function after the other."""
    turn = itertools.cycle(predictions)
    return lambda windows: next(turn)(windows)


def test_parts_are_told_apart_by_their_names() -> None:
    predictor = changing(
        lambda w: {"one": w + 1, "two": w + 2},
        lambda w: {"two": w + 2, "one": w + 1},
    )

    parts = sliding_window_inference(torch.zeros(1, 1, 9, 9), predictor, roi_size=4)

    assert list(parts) == ["one", "two"]
    assert_close(parts["one"], torch.ones(1, 1, 9, 9))
    assert_close(parts["two"], torch.full((1, 1, 9, 9), 2.0))


@pytest.mark.parametrize(
    "other",
    [
        lambda w: {"a": w},  # one channel would spread over two
        lambda w: {"b": w.repeat(1, 2, 1, 1)},
        lambda w: {"a": w.repeat(1, 2, 1, 1), "b": w},
        lambda w: [w.repeat(1, 2, 1, 1)],
    ],
)
def test_refuses_other_parts_or_channels_than_before(other: Callable[[Tensor], object]) -> None:
    predictor = changing(lambda w: {"a": w.repeat(1, 2, 1, 1)}, other)
    with pytest.raises(ValueError, match=r"same parts and channels for every window, {'a': 2}"):
        sliding_window_inference(torch.ones(1, 1, 9, 9), predictor, roi_size=4)


def test_a_window_of_no_size_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^roi_size must be at least 1; got 0"):
        sliding_window_inference(torch.ones(1, 1, 9, 9), lambda w: w, roi_size=(4, 0))
