"""Checkpoints of the published programs load strictly, and run nothing."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medkit.convert import WeightsError, load_published_weights
from medkit.data import DataError, FormatError, LimitError
from medkit.nn import CoordinateMLP, HybridAttentionUNet, KerasResNetV2, SegFormer3D
from medkit.testing import assert_close
from unit.nn.segformers import TINY, filled, golden

PUBLISHED = golden("segformer3d_orig.npz")


def segformer(**options: object) -> SegFormer3D:
    return SegFormer3D(2, 3, **{**TINY, "profile": "segformer3d_published", **options}).eval()


def wrapped(state: dict, prefix: str) -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda state: wrapped(state, "module."),
        lambda state: wrapped(state, "_orig_mod.module."),
        lambda state: {"state_dict": wrapped(state, "module."), "epoch": 7},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        lambda state: {"model": {"state_dict": state}, "config": {"lr": [1e-4, "x", None]}},
    ],
)
def test_a_published_checkpoint_gives_the_published_logits(tmp_path: Path, wrap) -> None:
    torch.save(wrap(filled(segformer()).state_dict()), tmp_path / "best.pth")
    model = segformer()

    report = load_published_weights(model, tmp_path / "best.pth")

    with torch.no_grad():
        y = model(torch.from_numpy(PUBLISHED["tiny_x"]))
    assert_close(y, PUBLISHED["tiny_y"], atol=1e-5)
    assert report.loaded == tuple(model.state_dict())


def test_what_else_a_checkpoint_holds_is_reported(tmp_path: Path) -> None:
    state = segformer().state_dict()
    torch.save({"epoch": 1, "model_state_dict": state, "history": [1.0]}, tmp_path / "x.pth")

    assert load_published_weights(segformer(), tmp_path / "x.pth").skipped == ("epoch", "history")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "make", [segformer, lambda: HybridAttentionUNet(base_channels=2), lambda: CoordinateMLP()]
)
def test_every_published_network_loads_from_both_formats_of_torch(
    tmp_path: Path, make, old: bool
) -> None:
    source, model = make(), make()
    torch.save(
        {"model_state_dict": source.state_dict()},
        tmp_path / "x.pth",
        _use_new_zipfile_serialization=not old,
    )

    load_published_weights(model, tmp_path / "x.pth")

    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def refused(path: Path, state: object, error: type[DataError], message: str) -> DataError:
    """Save, load, check the message and that nothing changed, and return the error."""
    torch.save(state, path)
    return not_loaded(path, error, message)


def not_loaded(path: Path, error: type[DataError], message: str) -> DataError:
    model = filled(CoordinateMLP(width=4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(error, match=message) as caught:
        load_published_weights(model, path)
    assert str(path) in str(caught.value)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    return caught.value


@given(data=st.data())
@settings(max_examples=10)
def test_any_missing_tensor_is_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    state = CoordinateMLP(width=4).state_dict()
    gone = data.draw(st.sampled_from(list(state)))
    del state[gone]

    error = refused(tmp_path_factory.mktemp("x") / "x.pth", state, WeightsError, "1 missing")

    assert isinstance(error, WeightsError)
    assert error.missing == (gone,)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = CoordinateMLP(width=4).state_dict()
    path = tmp_path / "x.pth"
    first = "network.0.weight"

    refused(path, {**state, "extra": torch.zeros(1)}, WeightsError, r"1 left over \(extra\)")
    refused(path, {**state, first: torch.zeros(4, 4)}, WeightsError, "1 of another shape or type")
    refused(path, {**state, first: torch.zeros(4, 3).int()}, WeightsError, "1 of another shape")
    refused(path, {**state, first: torch.zeros(4, 3).cfloat()}, WeightsError, "1 of another shape")
    refused(path, {**state, first: torch.zeros(4, 3).to_sparse()}, WeightsError, "1 of another")
    refused(path, wrapped(state, "other."), WeightsError, "10 missing .*; 10 left over")


def test_the_other_layout_of_a_coordinate_network_is_recognized(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    state = CoordinateMLP(width=4, dropout_after=(3,)).state_dict()

    refused(path, state, WeightsError, r"CoordinateMLP\(depth=4, dropout_after=\(3,\)\)")

    load_published_weights(CoordinateMLP(width=4, dropout_after=(3,)), path)


class Bomb:
    """What a pickle can do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("open('exploded', 'w').close()",)


@pytest.mark.parametrize("old", [False, True])
def test_code_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    state = {**CoordinateMLP(width=4).state_dict(), "x": Bomb()}
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=not old)

    message = "must be tensors and plain values; got .*exec, which runs code. Nothing in it was"
    not_loaded(tmp_path / "x.pth", FormatError, message)

    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "content",
    [nn.Linear(2, 2), {"state_dict": nn.Linear(2, 2)}, {"metrics": np.float64(1), "model": {}}],
)
def test_pickled_objects_are_refused(tmp_path: Path, content: object) -> None:
    refused(tmp_path / "x.pth", content, FormatError, "got .*, which runs code")


def _circle() -> dict:
    circle: dict = {}
    circle["model"] = circle
    return circle


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(3)], "content must be tensors by name; got list"),
        ({}, "got nothing"),
        ({"weights": {"a": torch.zeros(3)}, "epoch": 1}, "hold them as .*; got weights, epoch"),
        ({"model": torch.zeros(3), "epoch": 3}, "got model, epoch"),
        ({1: torch.zeros(3)}, "got 1"),
        (_circle(), "got model"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: object, message: str) -> None:
    refused(tmp_path / "x.pth", content, FormatError, message)


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"a": 1}, 2), b"PK\x03\x04junk"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)

    not_loaded(tmp_path / "x.pth", FormatError, "must be")


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_published_weights(CoordinateMLP(), tmp_path / "none.pth")


def test_an_archive_that_grows_is_refused(tmp_path: Path) -> None:
    torch.save(CoordinateMLP(width=4).state_dict(), tmp_path / "small.pth")
    with (
        zipfile.ZipFile(tmp_path / "small.pth") as small,
        zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for info in small.infolist():
            content = small.read(info)
            packed.writestr(info.filename, content + bytes(10**6 * ("data/0" in info.filename)))

    not_loaded(tmp_path / "x.pth", LimitError, "content must be at most the .* bytes of the file")


@given(keep=st.floats(0.01, 0.99))
@settings(max_examples=20)
def test_a_file_cut_short_is_refused(tmp_path_factory: pytest.TempPathFactory, keep: float) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.pth"
    torch.save(CoordinateMLP(width=4).state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])

    not_loaded(path, FormatError, "must be")


def test_other_modules_and_profiles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="module must be a SegFormer3D, HybridAttentionUNet or"):
        load_published_weights(KerasResNetV2(base_channels=1), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"profile must be one of .*; got 'medicai'"):
        load_published_weights(segformer(profile="medicai"), tmp_path / "x.pth")
