"""Boundaries, masks and probabilities of layers against loops, enumeration and closed forms."""

import itertools
from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medkit.ops import (
    boundaries_from_probabilities,
    boundaries_to_mask,
    boundary_posterior,
    mask_to_boundaries,
    rescale_boundaries,
)
from medkit.testing import assert_close

NAN = torch.nan


@pytest.fixture
def _unchecked_shapes() -> Iterator[None]:
    """Let wrong types through the annotations, to reach the checks that users have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def mask_by_hand(boundaries: np.ndarray, height: int) -> np.ndarray:
    """Fill each column row by row, after putting its rounded boundaries in order."""
    mask = np.zeros((height, boundaries.shape[1]), dtype=int)
    for x, column in enumerate(boundaries.T):
        if np.isnan(column).any():
            mask[:, x] = 255
            continue
        edges = sorted(min(max(round(float(b)), 0), height) for b in column)
        for y in range(height):
            while mask[y, x] < len(edges) and edges[mask[y, x]] <= y:
                mask[y, x] += 1
            if y + 1 < height:
                mask[y + 1, x] = mask[y, x]
    return mask


def boundaries_by_hand(mask: np.ndarray, num_classes: int, ignored: int, missing: float):
    """Walk down each column until a class below the boundary comes."""
    rows = np.full((num_classes - 1, mask.shape[1]), missing)
    for x, column in enumerate(mask.T):
        for k in range(1, num_classes):
            found = [y for y, c in enumerate(column) if c != ignored and c >= k]
            row = found[0] if found else len(column)
            if row > 0 and column[row - 1] == ignored:
                rows[k - 1, x] = np.nan
            elif found:
                rows[k - 1, x] = row
    return rows


def placements(height: int, boundaries: int) -> list[tuple[int, ...]]:
    """Return every way to place boundaries in order."""
    return list(itertools.combinations_with_replacement(range(height + 1), boundaries))


def probability(column: np.ndarray, edges: tuple[int, ...]) -> float:
    """Return the product over rows of the probability of the layer they are in."""
    layers = [sum(edge <= y for edge in edges) for y in range(column.shape[1])]
    return float(np.prod([column[layer, y] for y, layer in enumerate(layers)]))


def columns(channels: int, height: int, width: int, *, sharpness: float = 2.0) -> torch.Tensor:
    scores = sharpness * torch.randn(channels, height, width, dtype=torch.float64)
    return scores.softmax(0)


# Masks


@pytest.mark.parametrize("lines", [1, 2, 4])
def test_a_mask_is_filled_as_by_hand(lines: int) -> None:
    rng = np.random.default_rng(lines)
    boundaries = rng.uniform(-3, 13, (lines, 400))
    boundaries[:, :100] = np.round(boundaries[:, :100] * 2) / 2  # halves
    boundaries[rng.random((lines, 400)) < 0.05] = np.nan

    mask = boundaries_to_mask(torch.from_numpy(boundaries), height=10)

    assert torch.equal(mask, torch.from_numpy(mask_by_hand(boundaries, 10)))


def test_infinite_and_integer_boundaries() -> None:
    mask = boundaries_to_mask(torch.tensor([[-torch.inf, torch.inf]]), height=2)

    assert mask.tolist() == [[1, 0], [1, 0]]
    assert boundaries_to_mask(torch.tensor([[1, 2]]), height=2).tolist() == [[0, 0], [1, 0]]


def test_a_column_that_nobody_annotated_is_ignored_and_not_background() -> None:
    mask = boundaries_to_mask(torch.tensor([[1.0, NAN], [2.0, 1.0]]), height=3, ignore_index=-1)

    assert mask.tolist() == [[0, -1], [1, -1], [2, -1]]


@pytest.mark.parametrize("missing", ["nan", "bottom"])
@pytest.mark.parametrize("ignored", [0.0, 0.2])
def test_boundaries_are_found_as_by_hand(ignored: float, missing: str) -> None:
    rng = np.random.default_rng(5)
    mask = rng.integers(0, 4, (6, 800))
    mask[:, :400] = np.sort(mask[:, :400], 0)
    mask[rng.random(mask.shape) < ignored] = 255

    rows = mask_to_boundaries(torch.from_numpy(mask), num_classes=4, missing=missing)

    expected = boundaries_by_hand(mask, 4, 255, np.nan if missing == "nan" else 6.0)
    assert rows.dtype == torch.float32
    assert_close(rows, expected)


@pytest.mark.parametrize("ignore_index", [None, 255])
def test_the_first_layer_may_begin_at_the_top(ignore_index: int | None) -> None:
    mask = torch.tensor([[1], [2], [2]])

    rows = mask_to_boundaries(mask, num_classes=3, ignore_index=ignore_index)

    assert rows.tolist() == [[0.0], [1.0]]


def test_a_column_of_nothing_known_has_no_boundary() -> None:
    mask = torch.full((3, 1), 255)

    for missing in ("nan", "bottom"):
        assert mask_to_boundaries(mask, num_classes=3, missing=missing).isnan().all()


def test_boundaries_of_a_disordered_column_are_in_order() -> None:
    upside_down = torch.tensor([2, 2, 1, 1, 0])[:, None]

    assert mask_to_boundaries(upside_down, num_classes=3).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_any_batch_and_any_integer_type(dtype: torch.dtype) -> None:
    boundaries = torch.rand(2, 3, 2, 5).sort(-2).values * 7

    mask = boundaries_to_mask(boundaries, height=8)
    rows = mask_to_boundaries(mask.to(dtype), num_classes=3)

    assert mask.shape == (2, 3, 8, 5)
    assert_close(rows, boundaries.round())
    assert torch.equal(mask[1, 2], boundaries_to_mask(boundaries[1, 2], height=8))


def test_masks_refuse_what_they_cannot_mean() -> None:
    with pytest.raises(ValueError, match=r"ignore_index must be no class \(0 to 2\); got 1"):
        boundaries_to_mask(torch.zeros(2, 3), height=4, ignore_index=1)
    with pytest.raises(ValueError, match="height must be at least 1; got 0"):
        boundaries_to_mask(torch.zeros(2, 3), height=0)
    with pytest.raises(ValueError, match=r"mask must be in \[0, 2\).*from 0 to 2"):
        mask_to_boundaries(torch.tensor([[0], [2]]), num_classes=2)
    with pytest.raises(ValueError, match=r"mask must be in \[0, 2\); got values from 0 to 255"):
        mask_to_boundaries(torch.tensor([[0], [255]]), num_classes=2, ignore_index=None)
    with pytest.raises(ValueError, match="num_classes must be at least 2; got 1"):
        mask_to_boundaries(torch.tensor([[0]]), num_classes=1)


# Sizes


def test_rows_keep_their_place_in_a_taller_image() -> None:
    """Rows of an image resized from 496 to 480 lines, set beside the original ones."""
    truth = torch.linspace(100, 300, 768).reshape(1, 768)

    small = rescale_boundaries(truth, from_shape=(496, 768), to_shape=(480, 768))
    back = rescale_boundaries(small, from_shape=(480, 768), to_shape=(496, 768))

    assert_close(small, truth * 480 / 496)
    assert_close(back, truth)
    assert float((small - truth).abs().max()) > 9


def test_rows_from_the_centre_move_as_pixels_do() -> None:
    rows = torch.tensor([[0.0, 1.0, -0.5]])

    moved = rescale_boundaries(rows, from_shape=(4, 3), to_shape=(8, 3), origin="center")

    assert_close(moved, [[0.5, 2.5, -0.5]])


def test_boundaries_of_a_resized_image_are_resized_boundaries() -> None:
    p = columns(3, 12, 9)

    larger = F.interpolate(p[None], size=(48, 27), mode="bilinear", align_corners=False)[0]
    rows = boundaries_from_probabilities(larger)

    expected = rescale_boundaries(
        boundaries_from_probabilities(p), from_shape=(12, 9), to_shape=(48, 27)
    )
    assert_close(rows, expected)


@pytest.mark.parametrize("new_width", [1, 4, 9, 30])
def test_columns_are_interpolated_as_a_resized_image(new_width: int) -> None:
    rows = torch.rand(2, 3, 9, dtype=torch.float64)

    moved = rescale_boundaries(rows, from_shape=(5, 9), to_shape=(5, new_width))

    expected = F.interpolate(rows, size=new_width, mode="linear", align_corners=False)
    assert_close(moved, expected)


def test_unknown_columns_stay_unknown_and_spread_no_further() -> None:
    rows = torch.tensor([[1.0, NAN, 3.0, 4.0]])

    same = rescale_boundaries(rows, from_shape=(4, 4), to_shape=(8, 4))
    wider = rescale_boundaries(rows, from_shape=(4, 4), to_shape=(4, 8))
    thirds = rescale_boundaries(rows, from_shape=(4, 4), to_shape=(4, 12))

    assert_close(same, [[2.0, NAN, 6.0, 8.0]])
    assert_close(wider, [[1.0, NAN, NAN, NAN, NAN, 3.25, 3.75, 4.0]])
    assert not thirds[0, [0, 1, 7, 8]].isnan().any()


def test_sizes_that_are_none_are_named() -> None:
    rows = torch.zeros(1, 4)

    with pytest.raises(ValueError, match=r"from_shape must be a height and a width; got \(4,\)"):
        rescale_boundaries(rows, from_shape=(4,), to_shape=(4, 4))
    with pytest.raises(ValueError, match="to_shape must be at least 1; got 0"):
        rescale_boundaries(rows, from_shape=(4, 4), to_shape=(0, 4))
    with pytest.raises(ValueError, match="boundaries must be of the width of from_shape, 5"):
        rescale_boundaries(rows, from_shape=(4, 5), to_shape=(4, 4))


# Probabilities


def test_column_sums_are_added_up_as_by_hand() -> None:
    p = columns(4, 7, 5)

    rows = boundaries_from_probabilities(p)

    expected = np.zeros((3, 5))
    for k, x in np.ndindex(3, 5):
        expected[k, x] = sum(float(p[c, y, x]) for c in range(k + 1) for y in range(7))
    assert_close(rows, expected)


@pytest.mark.parametrize(("channels", "height"), [(2, 9), (3, 7), (4, 5), (5, 4)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_posterior_is_the_mean_over_every_placement(
    channels: int, height: int, temperature: float
) -> None:
    p = columns(channels, height, 6)

    rows = boundaries_from_probabilities(p, method="posterior", temperature=temperature)

    for x in range(6):
        ways = placements(height, channels - 1)
        column = p[:, :, x].numpy() ** (1 / temperature)
        weights = np.array([probability(column, way) for way in ways])
        expected = (weights[:, None] * np.array(ways)).sum(0) / weights.sum()
        assert_close(rows[:, x], expected)


@pytest.mark.parametrize(("channels", "height"), [(2, 9), (3, 7), (5, 4)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_spread_is_that_over_every_placement(
    channels: int, height: int, temperature: float
) -> None:
    p = columns(channels, height, 6)

    result = boundary_posterior(p, temperature=temperature)
    by_log = boundary_posterior(p.log(), temperature=temperature, log_input=True)

    for x in range(6):
        ways = np.array(placements(height, channels - 1))
        column = p[:, :, x].numpy() ** (1 / temperature)
        weights = np.array([probability(column, way) for way in ways])
        weights = weights / weights.sum()
        mean = (weights[:, None] * ways).sum(0)
        std = np.sqrt((weights[:, None] * (ways - mean) ** 2).sum(0))
        assert_close(result.std[:, x], std)
    assert_close(by_log.std, result.std)
    means = boundaries_from_probabilities(p, method="posterior", temperature=temperature)
    assert torch.equal(result.mean, means)


def test_spread_has_gradients_also_where_there_is_none() -> None:
    scores = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)

    def f(s: torch.Tensor) -> torch.Tensor:
        return boundary_posterior(s.log_softmax(0), log_input=True).std

    assert torch.autograd.gradcheck(f, scores)
    sure = torch.zeros(2, 6, 1)
    sure[0, :3], sure[1, 3:] = 1.0, 1.0
    sure.requires_grad_()
    boundary_posterior(sure).std.sum().backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


def test_little_probability_far_away_hardly_widens_the_posterior() -> None:
    mask = boundaries_to_mask(torch.tensor([[40.0], [60.0]]), height=100)
    p = F.one_hot(mask, 3).movedim(-1, -3).float() * 0.97 + 0.01

    result = boundary_posterior(p, temperature=1.0)

    assert_close(result.mean, [[40.0], [60.0]], atol=1e-4)
    assert result.std.max() < 0.2


@pytest.mark.parametrize(("channels", "height"), [(2, 9), (3, 7), (4, 5), (5, 4)])
def test_map_is_the_best_of_every_placement(channels: int, height: int) -> None:
    p = columns(channels, height, 20)

    rows = boundaries_from_probabilities(p, method="map")

    for x in range(20):
        column = p[:, :, x].numpy()
        best = max(placements(height, channels - 1), key=lambda way: probability(column, way))
        assert tuple(rows[:, x].tolist()) == best


@pytest.mark.parametrize("method", ["sum", "posterior", "map"])
def test_a_certain_mask_gives_its_boundaries(method: str) -> None:
    boundaries = torch.randint(0, 31, (4, 2, 50)).sort(-2).values.float()
    mask = boundaries_to_mask(boundaries, height=30)
    p = F.one_hot(mask, 3).movedim(-1, -3).float()

    rows = boundaries_from_probabilities(p, method=method)

    assert_close(rows, boundaries)


def test_a_linear_edge_is_found_between_rows() -> None:
    edges = torch.tensor([3.0, 3.3, 4.75])
    rows = torch.arange(9)[:, None]
    above = (edges - rows).clamp(0, 1)
    p = torch.stack([above, 1 - above])

    assert_close(boundaries_from_probabilities(p), edges[None])


def test_leaked_probability_moves_the_sum_as_computed_and_not_the_posterior() -> None:
    boundaries = torch.randint(60, 400, (2, 100)).sort(0).values.double()
    mask = boundaries_to_mask(boundaries, height=480)
    p = 0.95 * F.one_hot(mask, 3).movedim(-1, 0).double() + 0.05 / 3

    by_sum = boundaries_from_probabilities(p)
    by_posterior = boundaries_from_probabilities(p, method="posterior")

    assert_close(by_sum, 0.95 * boundaries + 0.05 * torch.tensor([[160.0], [320.0]]))
    distinct = (boundaries[1] - boundaries[0]) > 30
    assert_close(by_posterior[:, distinct], boundaries[:, distinct], atol=1e-6)


def test_far_outliers_hardly_move_the_posterior() -> None:
    boundaries = torch.tensor([[100.0], [300.0]])
    mask = boundaries_to_mask(boundaries, height=480)
    mask[20:30], mask[400:405] = 2, 0
    p = 0.98 * F.one_hot(mask, 3).movedim(-1, 0).float() + 0.02 / 3

    first_transition = mask_to_boundaries(mask, num_classes=3)
    by_posterior = boundaries_from_probabilities(p, method="posterior", temperature=4.0)
    by_map = boundaries_from_probabilities(p, method="map")

    assert first_transition.tolist() == [[20.0], [20.0]]
    assert_close(by_map, boundaries)
    assert float((by_posterior - boundaries).abs().max()) < 0.5


@pytest.mark.parametrize("method", ["posterior", "map"])
def test_impossible_columns_still_have_boundaries_in_order(method: str) -> None:
    upside_down = F.one_hot(torch.tensor([2, 2, 1, 0]), 3).T[..., None].float()

    rows = boundaries_from_probabilities(upside_down, method=method)

    assert bool(rows.isfinite().all())
    assert bool((rows[0] <= rows[1]).all())


@pytest.mark.parametrize("method", ["sum", "posterior", "map"])
def test_logarithms_are_taken_as_well(method: str) -> None:
    p = columns(3, 40, 8)
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).T[..., None]

    rows = boundaries_from_probabilities(p.log(), method=method, log_input=True)

    assert_close(rows, boundaries_from_probabilities(p, method=method))
    sure = boundaries_from_probabilities(certain.log(), method=method, log_input=True)
    assert_close(sure, [[1.0]])


@pytest.mark.parametrize("method", ["sum", "posterior", "map"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_short_types_are_added_up_in_a_long_one(dtype: torch.dtype, method: str) -> None:
    p = (columns(3, 496, 12) + 1e-3).to(dtype)

    rows = boundaries_from_probabilities(p, method=method)

    assert rows.dtype == torch.float32
    assert_close(rows, boundaries_from_probabilities(p.double(), method=method), rtol=1e-5)


@pytest.mark.parametrize("method", ["sum", "posterior", "map"])
def test_any_batch_shape(method: str) -> None:
    p = columns(3, 9, 24).reshape(3, 9, 2, 3, 4).permute(2, 3, 0, 1, 4)

    rows = boundaries_from_probabilities(p, method=method)

    assert rows.shape == (2, 3, 2, 4)
    assert_close(rows[1, 2], boundaries_from_probabilities(p[1, 2], method=method))


@pytest.mark.parametrize("method", ["sum", "posterior"])
def test_gradients_match_finite_differences(method: str) -> None:
    scores = torch.randn(2, 3, 5, 2, dtype=torch.float64, requires_grad=True)

    def f(scores):
        return boundaries_from_probabilities(scores.softmax(1), method=method, temperature=1.5)

    def g(scores):
        log_p = scores.log_softmax(1)
        return boundaries_from_probabilities(log_p, method=method, log_input=True)

    assert torch.autograd.gradcheck(f, scores)
    assert torch.autograd.gradcheck(g, scores)
    assert torch.autograd.gradgradcheck(g, scores)


def test_logarithms_keep_a_gradient_where_probabilities_are_zero() -> None:
    """Both ends say the opposite of what the order allows, with certainty."""
    scores = torch.tensor([-250.0, 0.0, 0.0, 250.0]).reshape(1, 4, 1)
    scores = torch.cat([scores, -scores]).requires_grad_()

    log_p = scores.log_softmax(0)
    row = boundaries_from_probabilities(log_p, method="posterior", log_input=True)
    row.sum().backward()

    assert_close(row, [[2.0]])
    assert scores.grad is not None
    assert_close(scores.grad[:, [0, 3], 0], [[1.0, 1.0], [-1.0, -1.0]], rtol=1e-5)


def test_nan_stays_in_its_column() -> None:
    p = columns(3, 8, 3)
    p[1, 4, 1] = NAN

    for method in ("sum", "posterior"):
        rows = boundaries_from_probabilities(p, method=method)
        assert rows[:, 1].isnan().any()
        assert not rows[:, [0, 2]].isnan().any()


@pytest.mark.usefixtures("_unchecked_shapes")
def test_probabilities_that_are_none_are_named() -> None:
    with pytest.raises(ValueError, match="two channels or more; got shape"):
        boundaries_from_probabilities(torch.ones(1, 4, 4))
    with pytest.raises(TypeError, match="p must be floating point"):
        boundaries_from_probabilities(torch.ones(2, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="temperature must be positive; got 0"):
        boundaries_from_probabilities(torch.ones(2, 4, 4), temperature=0.0)
