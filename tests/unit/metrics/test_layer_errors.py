"""Errors of layer boundaries: loops in Python, NumPy's moments, and nothing that vanishes."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medkit.metrics import LayerBoundaryErrors, layer_errors
from medkit.testing import assert_close
from unit.losses.refusals import refuses

NAN = torch.nan


def boundaries(seed: int = 0, images: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predicted and true rows; a tenth of the columns is not annotated."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.tensor([20.0, 60.0]).view(1, 2, 1) + torch.rand(
        images, 2, 30, generator=generator
    ).mul(10)
    prediction = target + torch.randn(target.shape, generator=generator) + 0.5
    target[torch.rand(target.shape, generator=generator) < 0.1] = NAN
    return prediction, target


def test_every_number_equals_plain_loops() -> None:
    prediction, target = boundaries()
    spacing = 0.004

    ours = layer_errors(prediction, target, spacing=spacing)

    for k in range(2):
        pairs = [
            (float(p), float(t))
            for p, t in zip(prediction[:, k].flatten(), target[:, k].flatten(), strict=True)
            if not math.isnan(t)
        ]
        errors = [spacing * (p - t) for p, t in pairs]
        assert ours.mae[k].item() == pytest.approx(sum(map(abs, errors)) / len(errors))
        assert ours.rmse[k].item() == pytest.approx(
            math.sqrt(sum(e * e for e in errors) / len(errors))
        )
        assert ours.bias[k].item() == pytest.approx(sum(errors) / len(errors))
        assert ours.p95[k].item() == pytest.approx(np.percentile(np.abs(errors), 95))
        p, t = np.array(pairs).T
        moments = np.cov(p, t, bias=True)
        assert ours.ccc[k].item() == pytest.approx(
            2 * moments[0, 1] / (moments[0, 0] + moments[1, 1] + (p.mean() - t.mean()) ** 2)
        )
        assert ours.columns[k].item() == len(pairs)
    assert ours.coverage.tolist() == [1.0, 1.0]
    thick = spacing * ((prediction[:, 1] - prediction[:, 0]) - (target[:, 1] - target[:, 0]))
    thick = thick[~thick.isnan()].double()
    assert ours.thickness_mae.item() == pytest.approx(thick.abs().mean().item(), rel=1e-5)
    assert ours.thickness_bias.item() == pytest.approx(thick.mean().item(), rel=1e-4)


def test_three_of_four_missing_columns_are_no_error_of_zero() -> None:
    target = torch.full((1, 1, 4), 10.0)
    prediction = torch.tensor([[[10.0, NAN, NAN, NAN]]])

    with refuses("prediction"):
        layer_errors(prediction, target)
    penalized = layer_errors(prediction, target, missing="penalize", height=100)
    ignored = layer_errors(prediction, target, missing="ignore")

    assert penalized.mae.item() == 3 * 90 / 4
    assert penalized.coverage.item() == ignored.coverage.item() == 0.25
    assert ignored.mae.item() == 0.0


def test_nothing_found_is_missed_and_nothing_annotated_is_empty() -> None:
    target = torch.full((2, 1, 5), 10.0)
    target[1] = NAN
    prediction = torch.full((2, 1, 5), NAN)

    ignored = layer_errors(prediction, target, missing="ignore")
    penalized = layer_errors(prediction, target, missing="penalize", height=40)

    assert ignored.mae.isnan().all()
    assert ignored.cases.is_status("missed").flatten().tolist() == [True, False]
    assert ignored.cases.is_status("both_empty").flatten().tolist() == [False, True]
    assert ignored.cases.mean() == math.inf
    assert penalized.cases.values[0].item() == 30.0
    assert penalized.cases.values[1].isnan()
    nobody = layer_errors(prediction, target * NAN)
    assert nobody.mae.isnan().all()
    assert nobody.coverage.isnan().all()


@given(seed=st.integers(0, 1000), column=st.integers(0, 29), case=st.integers(0, 3))
def test_giving_up_a_column_never_improves_a_penalized_error(seed, column, case) -> None:
    prediction, target = boundaries(seed)
    prediction = prediction.clamp(0, 100)
    fewer = prediction.clone()
    fewer[case, :, column] = NAN
    options = {"missing": "penalize", "height": 100.0}

    before, after = (layer_errors(each, target, **options) for each in (prediction, fewer))

    for name in ("mae", "rmse", "p95", "thickness_mae"):
        assert (getattr(after, name) >= getattr(before, name)).all()
    assert after.cases.mean() >= before.cases.mean()
    assert (after.coverage <= before.coverage).all()


def test_no_split_and_no_order_changes_a_bit() -> None:
    prediction, target = boundaries(images=6)
    parts = [LayerBoundaryErrors(), LayerBoundaryErrors()]
    parts[0].update(prediction[3:], target[3:])
    parts[1].update(prediction[:1], target[:1])
    parts[1].update(prediction[1:3], target[1:3])
    parts[0].merge(pickle.loads(pickle.dumps(parts[1])))

    ours, whole = parts[0].compute(), layer_errors(prediction, target)

    for name in ("mae", "rmse", "bias", "p95", "ccc", "coverage", "thickness_mae"):
        assert torch.equal(getattr(ours, name), getattr(whole, name))
    assert ours.cases.mean() == whole.cases.mean()
    parts[0].reset()
    with refuses("LayerBoundaryErrors"):
        parts[0].compute()


def test_spacing_is_a_unit() -> None:
    prediction, target = boundaries()
    one, half = (layer_errors(prediction, target, spacing=s) for s in (1.0, 0.5))

    assert_close(half.mae, one.mae / 2)
    assert_close(half.thickness_mae, one.thickness_mae / 2)
    assert_close(half.ccc, one.ccc)


def test_bad_input_is_refused() -> None:
    prediction, target = boundaries()
    with pytest.raises((ValueError, TypeError), match=r"prediction|target"):
        layer_errors(prediction[:1], target)
    with refuses("missing"):
        layer_errors(prediction, target, missing="zero")
    with refuses("height"):
        layer_errors(prediction, target, missing="penalize")
    with refuses("prediction and target"):
        layer_errors(prediction * math.inf, target)
    with refuses("other"):
        LayerBoundaryErrors().merge(LayerBoundaryErrors(spacing=2.0))
    with pytest.raises((TypeError, ValueError), match="other"):
        LayerBoundaryErrors().merge("rows")


def test_a_layer_without_boundaries_is_worse_than_any_layer() -> None:
    target = torch.tensor([[[10.0, 10.0], [17.0, 17.0]]])  # 7 thick
    found = torch.tensor([[[10.0, 10.0], [60.0, 60.0]]])  # 50 thick
    missed = found.clone()
    missed[..., 0] = NAN

    before, after = (
        layer_errors(each, target, missing="penalize", height=100) for each in (found, missed)
    )

    assert before.thickness_mae.item() == 43.0
    assert after.thickness_mae.item() == (93 + 43) / 2
    assert after.thickness_bias.item() == (93 + 43) / 2
