"""The synthetic eye: the same from the same seed, and its truth is where its edges are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.data import oct_phantom


def test_same_seed_same_eye_and_another_seed_another() -> None:
    one, again, other = (oct_phantom(size=(62, 96), num_scans=2, seed=seed) for seed in (3, 3, 4))

    assert torch.equal(one.images, again.images)
    assert torch.equal(one.boundaries.nan_to_num(), again.boundaries.nan_to_num())
    assert (one.images != other.images).float().mean() > 0.5


def test_more_scans_of_an_eye_keep_its_shape() -> None:
    few, many = (oct_phantom(size=(62, 96), num_scans=n, unannotated=0, seed=1) for n in (3, 5))

    gap = few.boundaries[1] - many.boundaries[2]  # the middle of both

    assert gap.abs().max() < 5  # the eye moves, up to 2.5 rows, and its ripple
    assert few.images.dtype == torch.uint8


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(62, 130), width=st.integers(32, 100))
def test_layers_are_in_order_and_inside(seed: int, height: int, width: int) -> None:
    eye = oct_phantom(size=(height, width), num_scans=2, unannotated=0, seed=seed)

    ilm, bm = eye.boundaries.unbind(1)

    assert eye.images.shape == (2, height, width)
    assert (bm - ilm > 0.05 * height).all()
    assert (ilm > 0).all()
    assert (bm < height).all()


def test_retina_is_bright_below_ilm_and_signal_fades_below_bm() -> None:
    means = []
    for seed in range(4):
        eye = oct_phantom(size=(496, 96), num_scans=2, unannotated=0, seed=seed)
        rows = torch.arange(496)[:, None]
        ilm, bm = eye.boundaries[:, 0, None], eye.boundaries[:, 1, None]
        image = eye.images.float()
        bands = [
            (rows >= ilm - 6) & (rows < ilm - 1),
            (rows >= ilm + 1) & (rows < ilm + 6),
            (rows >= bm + 5) & (rows < bm + 20),
            rows >= bm + 120,
        ]
        means.append([float(image[band].mean()) for band in bands])

    above, below, choroid, deep = np.mean(means, axis=0)
    assert below > 2 * above
    assert choroid > 1.5 * deep


def test_true_rows_are_those_of_the_mean_image() -> None:
    """Speckle averages out; where the mean of many noises crosses half way is the edge."""
    eyes = [
        oct_phantom(size=(124, 64), num_scans=1, unannotated=0, seed=seed) for seed in range(60)
    ]
    profile = []
    for eye in eyes:
        rows = eye.boundaries[0, 0].round().long()
        window = rows[None] + torch.arange(-3, 3)[:, None]
        profile.append(eye.images[0].float().gather(0, window).mean(1))
    steps = torch.stack(profile).mean(0).diff()

    assert steps.argmax() == 2  # between the row above the rounded boundary and the one below


def test_unannotated_columns_are_about_the_share_asked_for() -> None:
    shares = [
        oct_phantom(size=(62, 192), num_scans=4, unannotated=0.2, seed=s).boundaries.isnan().float()
        for s in range(5)
    ]

    assert 0.1 < torch.stack(shares).mean() < 0.35
    assert all(torch.equal(share[:, 0], share[:, 1]) for share in shares)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (61, 96)}, "size must be"),
        ({"size": (62, 31)}, "size must be"),
        ({"num_scans": 0}, "num_scans must be"),
        ({"unannotated": 1.0}, "unannotated must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        oct_phantom(**options)
