"""A Keras file that does not fit is refused by name, and the network stays as it was."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medkit.convert import WeightsError, load_keras_weights, save_keras_weights
from medkit.data import DataError, FormatError, TruncatedError, UnsafeReferenceError
from medkit.nn import KerasResNetV2, SegFormer3D

SIZES = {"embed_dims": (4, 8, 10, 8), "num_heads": (1, 2, 5, 8), "depths": (1, 1, 1, 1)}


def segformer(**options: object) -> SegFormer3D:
    return SegFormer3D(2, 3, **{**SIZES, "decoder_dim": 6, "profile": "medicai", **options})


def resnet(**options: object) -> KerasResNetV2:
    return KerasResNetV2(**{"num_classes": 3, "base_channels": 2, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    save_keras_weights(segformer(), folder / "segformer.weights.h5")
    save_keras_weights(resnet(), folder / "resnet.weights.h5")
    save_keras_weights(resnet(), folder / "resnet.h5")
    return folder


MODELS = {"segformer.weights.h5": segformer, "resnet.weights.h5": resnet, "resnet.h5": resnet}
FILES = pytest.mark.parametrize("name", MODELS)


def changed(folder: Path, name: str, target: Path, change: Callable[[h5py.File], object]) -> Path:
    shutil.copy(folder / name, target / name)
    with h5py.File(target / name, "r+") as file:
        change(file)
    return target / name


def arrays(path: Path) -> list[str]:
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda n, part: found.append(n) if isinstance(part, h5py.Dataset) else None)
    return found


def refused(model: nn.Module, path: Path, error: type[DataError], message: str) -> DataError:
    """Load, check the message and that nothing changed, and return the error."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(error, match=message) as caught:
        load_keras_weights(model, path)
    assert str(path) in str(caught.value)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    return caught.value


@FILES
def test_what_is_whole_loads(folder: Path, name: str) -> None:
    load_keras_weights(MODELS[name](), folder / name)


@FILES
@settings(max_examples=6)
@given(data=st.data())
def test_any_missing_array_is_named(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(arrays(folder / name)))
    path = changed(folder, name, tmp_path_factory.mktemp("x"), lambda f: f.__delitem__(gone))

    error = refused(
        MODELS[name](), path, WeightsError, "tensors must be those of .*; got 1 missing"
    )

    assert isinstance(error, WeightsError)
    assert len(error.missing) == 1
    assert not error.unexpected
    assert not error.misshapen


@FILES
@settings(max_examples=6)
@given(data=st.data())
def test_any_other_shape_is_named(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    array = data.draw(st.sampled_from(arrays(folder / name)))

    def reshape(file: h5py.File) -> None:
        values = file[array][()]
        del file[array]
        file[array] = np.concatenate([values, values])

    path = changed(folder, name, tmp_path_factory.mktemp("x"), reshape)

    error = refused(MODELS[name](), path, WeightsError, "1 of another shape or type")

    assert isinstance(error, WeightsError)
    assert error.misshapen[0].startswith(f"{array}: ")


@FILES
@pytest.mark.parametrize("dtype", ["i4", "c8", "S4"])
def test_another_type_is_named(folder: Path, tmp_path: Path, name: str, dtype: str) -> None:
    array = arrays(folder / name)[0]

    def retype(file: h5py.File) -> None:
        shape = file[array].shape
        del file[array]
        file[array] = np.zeros(shape, dtype)

    path = changed(folder, name, tmp_path, retype)

    refused(MODELS[name](), path, WeightsError, "1 of another shape or type")


@FILES
@pytest.mark.parametrize("dtype", [">f4", "f2", "f8"])
def test_other_floats_are_taken(folder: Path, tmp_path: Path, name: str, dtype: str) -> None:
    def retype(file: h5py.File) -> None:
        for array in arrays(folder / name):
            values = file[array][()].astype(dtype)
            del file[array]
            file[array] = values

    path = changed(folder, name, tmp_path, retype)
    a, b = MODELS[name](), MODELS[name]()
    load_keras_weights(a, path)
    load_keras_weights(b, folder / name)

    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(x, y.half().float() if dtype == "f2" else y)


@FILES
@pytest.mark.parametrize(
    "extra", ["layers/dense_9/vars/0", "layers/conv3d/vars/7", "layers/conv2d/vars/2", "x"]
)
def test_what_is_left_over_is_named(folder: Path, tmp_path: Path, name: str, extra: str) -> None:
    path = changed(folder, name, tmp_path, lambda f: f.__setitem__(extra, np.zeros(3, "f4")))

    error = refused(MODELS[name](), path, WeightsError, f"1 left over .{extra}.")

    assert isinstance(error, WeightsError)
    assert error.unexpected == (extra,)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("segformer.weights.h5", "optimizer/vars/0"),
        ("segformer.weights.h5", "layers/dropout/seed_generator/vars/0"),
        ("resnet.weights.h5", "optimizer/vars/0"),
        ("resnet.h5", "optimizer_weights/adam/iteration"),
    ],
)
def test_what_is_no_weight_is_skipped(folder: Path, tmp_path: Path, name: str, extra: str) -> None:
    path = changed(folder, name, tmp_path, lambda f: f.__setitem__(extra, np.zeros(3, "i8")))

    report = load_keras_weights(MODELS[name](), path)

    assert any(extra.startswith(part) for part in report.skipped)


def test_one_layer_under_two_paths_is_left_over(folder: Path, tmp_path: Path) -> None:
    """A network inside a network has its own numbers, so the same layer can appear twice."""
    twin = "layers/functional/layers/conv2d/vars/0"

    def copy(file: h5py.File) -> None:
        file[twin] = file["layers/conv2d/vars/0"][()]
        file["layers/functional/layers/conv2d/vars"].attrs["name"] = "conv1_conv"

    path = changed(folder, "resnet.weights.h5", tmp_path, copy)

    refused(resnet(), path, WeightsError, "1 left over")


def test_a_layer_of_another_name_is_not_taken_by_number(folder: Path, tmp_path: Path) -> None:
    def rename(file: h5py.File) -> None:
        file["layers/conv2d_4/vars"].attrs["name"] = "another"

    path = changed(folder, "resnet.weights.h5", tmp_path, rename)

    refused(resnet(), path, WeightsError, "missing .*; 2 left over .*conv2d_4/vars/0")


def test_names_win_over_numbers(folder: Path, tmp_path: Path) -> None:
    """Another version of Keras may number the layers in another order."""

    def swap(file: h5py.File) -> None:
        file.move("layers/conv2d_3", "x")
        file.move("layers/conv2d_4", "layers/conv2d_3")
        file.move("x", "layers/conv2d_4")

    path = changed(folder, "resnet.weights.h5", tmp_path, swap)
    a, b = resnet(), resnet()

    load_keras_weights(a, path)
    load_keras_weights(b, folder / "resnet.weights.h5")

    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(x, y)


def test_keras_2_puts_a_number_behind_each_variable(folder: Path, tmp_path: Path) -> None:
    def number(file: h5py.File) -> None:
        for array in arrays(folder / "resnet.h5"):
            file.move(array, f"{array}:0")

    a, b = resnet(), resnet()
    load_keras_weights(a, changed(folder, "resnet.h5", tmp_path, number))
    load_keras_weights(b, folder / "resnet.h5")

    assert arrays(tmp_path / "resnet.h5")[0].endswith(":0")
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


def test_the_layout_of_tensorflow_2_13_is_refused_with_a_way_out(
    folder: Path, tmp_path: Path
) -> None:
    root = "_layer_checkpoint_dependencies"
    path = changed(folder, "resnet.weights.h5", tmp_path, lambda file: file.move("layers", root))

    refused(resnet(), path, FormatError, "TensorFlow 2.13 to 2.15 .* save the weights to a name")


def test_bfloat16_is_refused_by_its_name(folder: Path, tmp_path: Path) -> None:
    """Keras stores it as an opaque type of two bytes with an attribute."""
    array = "layers/conv2d/vars/0"

    def retype(file: h5py.File) -> None:
        shape = file[array].shape
        del file[array]
        file[array] = np.zeros(shape, "V2")
        file[array].attrs["dtype"] = "bfloat16"

    path = changed(folder, "resnet.weights.h5", tmp_path, retype)

    error = refused(resnet(), path, WeightsError, "1 of another shape or type .*bfloat16")

    assert isinstance(error, WeightsError)
    shape, kind = "(7, 7, 3, 2)", "of two raw bytes, as Keras stores bfloat16"
    assert error.misshapen == (f"{array}: {shape} {kind} in the file, {shape} in the module",)


def test_a_list_of_shards_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.json"
    path.write_text('{"metadata": {}, "weight_map": {"/layers/conv2d/vars": ["a.weights.h5"]}}')

    refused(resnet(), path, FormatError, "shards of a model.* without max_shard_size")


def test_another_network_is_named(folder: Path) -> None:
    refused(segformer(), folder / "resnet.weights.h5", WeightsError, "those of SegFormer3D; got")
    refused(resnet(), folder / "segformer.weights.h5", WeightsError, "those of KerasResNetV2; got")
    refused(resnet(num_classes=0), folder / "resnet.weights.h5", WeightsError, "2 left over")
    refused(resnet(num_classes=4), folder / "resnet.h5", WeightsError, "2 of another shape")
    refused(
        segformer(depths=(1, 1, 1, 2)), folder / "segformer.weights.h5", WeightsError, "missing"
    )


@FILES
def test_links_are_refused_wherever_they_are(folder: Path, tmp_path: Path, name: str) -> None:
    array = arrays(folder / name)[5]
    group = array.split("/")[0]

    def link_array(file: h5py.File) -> None:
        del file[array]
        file[array] = h5py.ExternalLink(str(folder / name), array)

    def link_group(file: h5py.File) -> None:
        del file[group]
        file[group] = h5py.ExternalLink(str(folder / name), group)

    for change in (link_array, link_group):
        path = changed(folder, name, tmp_path, change)
        refused(MODELS[name](), path, UnsafeReferenceError, "must be a part of this file")


@FILES
@settings(max_examples=6)
@given(keep=st.floats(0.01, 0.99))
def test_a_file_cut_short_is_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, name: str, keep: float
) -> None:
    content = (folder / name).read_bytes()
    path = tmp_path_factory.mktemp("cut") / name
    path.write_bytes(content[: int(len(content) * keep)])

    refused(MODELS[name](), path, DataError, "file must be")


def test_an_array_that_was_never_written_is_refused(folder: Path, tmp_path: Path) -> None:
    def empty(file: h5py.File) -> None:
        shape = file["layers/dense/vars/0"].shape
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", shape, "f4")

    path = changed(folder, "segformer.weights.h5", tmp_path, empty)

    refused(segformer(), path, TruncatedError, "dense/vars/0 must be stored in full; got 0 of")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_bytes(b"no HDF5")
    refused(resnet(), tmp_path / "text.h5", FormatError, "file must be an HDF5 file")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["image"] = np.zeros(3)
        file.create_group("labels")
    message = "file must be laid out as Keras does; got groups labels"
    refused(resnet(), tmp_path / "other.h5", FormatError, message)


def archive(path: Path, name: str, content: bytes, **options: object) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr("config.json", "{}")
        file.writestr(name, content)
    return path


def test_archives_are_read_in_place_or_refused(folder: Path, tmp_path: Path) -> None:
    weights = (folder / "resnet.weights.h5").read_bytes()
    path = tmp_path / "x.keras"

    load_keras_weights(resnet(), archive(path, "model.weights.h5", weights))

    archive(path, "other.h5", weights)
    refused(resnet(), path, FormatError, "model.weights.h5 must be in the archive")
    archive(path, "model.weights.h5", weights, compression=zipfile.ZIP_DEFLATED)
    refused(resnet(), path, FormatError, "must be stored without compression.*Unzip")
    archive(path, "model.weights.h5", weights[:-100])
    refused(resnet(), path, TruncatedError, "model.weights.h5: file must be as long as")
    whole = archive(path, "model.weights.h5", weights).read_bytes()
    path.write_bytes(whole[:-30])
    refused(resnet(), path, FormatError, "file must be a whole archive; got damage")
    path.write_bytes(whole.replace(weights[5000:5100], bytes(100), 1))
    refused(resnet(), path, FormatError, "file must be a whole archive; got damage .*CRC")


def test_other_modules_and_profiles_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="module must be a SegFormer2D, SegFormer3D or KerasRes"):
        load_keras_weights(nn.Linear(2, 2), folder / "resnet.h5")
    for act in (load_keras_weights, save_keras_weights):
        with pytest.raises(ValueError, match=r"profile must be 'medicai'; got 'segformer3d'"):
            act(segformer(profile="segformer3d"), tmp_path / "x.weights.h5")


@pytest.mark.parametrize(
    ("model", "name"), [(segformer, "x.h5"), (segformer, "x.keras"), (resnet, "x.keras")]
)
def test_other_endings_are_refused(
    tmp_path: Path, model: Callable[[], nn.Module], name: str
) -> None:
    with pytest.raises(ValueError, match=r"path must be a name that ends in \.weights\.h5"):
        save_keras_weights(model(), tmp_path / name)

    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_keras_weights(resnet(), tmp_path / "none.weights.h5")
