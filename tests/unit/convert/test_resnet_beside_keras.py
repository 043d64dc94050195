"""ResNet V2 beside Keras itself: the same numbers, and files that go both ways."""

import logging
import zipfile
from pathlib import Path

import h5py
import pytest
import torch

from medkit.convert import load_keras_weights, save_keras_weights
from medkit.convert._keras_resnet_v2 import resnet_v2_layers
from medkit.nn import KerasResNetV2
from medkit.testing import assert_close
from unit.convert.keras_resnets import (
    backbone,
    keras,
    ours_with_head,
    randomize,
    theirs,
    with_head,
)

# Keras asks its tensors for arrays in a way that NumPy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ENDINGS = [".weights.h5", ".h5", ".keras", "legacy weights", "without names"]


def saved(model, folder: Path, ending: str) -> Path:
    """Save a model in one of the layouts that Keras has had."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # Keras calls .h5 legacy, which is the point
    path = folder / f"theirs{ending if ending.startswith('.') else '.weights.h5'}"
    if ending == "legacy weights":
        from keras.src.legacy.saving import legacy_h5_format

        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
    elif ending in (".h5", ".keras"):
        model.save(path)
    else:
        model.save_weights(path)
    if ending == "without names":  # as Keras 3.0 to 3.5 write it
        with h5py.File(path, "r+") as file:
            file.visititems(lambda _, part: part.attrs.pop("name", None))
    return path


@pytest.fixture(scope="module")
def model():
    model = with_head(backbone(), nested=False)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.fit(torch.rand(2, 32, 32, 3).numpy(), torch.eye(3)[:2].numpy(), verbose=0)
    randomize(model)
    return model


@pytest.fixture(scope="module")
def nested():
    model = with_head(backbone(), nested=True)
    randomize(model)
    return model


def test_initial_weights_give_the_same_numbers_to_the_last_bit(tmp_path: Path) -> None:
    base, ours = backbone(), KerasResNetV2().eval()
    x = torch.rand(2, 3, 64, 80).to(memory_format=torch.channels_last)  # as Keras keeps images
    base.save_weights(tmp_path / "x.weights.h5")

    load_keras_weights(ours, tmp_path / "x.weights.h5")

    with torch.no_grad():
        assert torch.equal(ours(x), theirs(base, x))


@pytest.mark.parametrize("depth", [50, 101])
def test_random_weights_and_odd_sizes_give_the_same_numbers(tmp_path: Path, depth: int) -> None:
    base, ours = backbone(depth=depth), KerasResNetV2(depth=depth).eval()
    randomize(base)
    x = torch.rand(1, 3, 33, 51)
    base.save_weights(tmp_path / "x.weights.h5")

    report = load_keras_weights(ours, tmp_path / "x.weights.h5")

    expected = theirs(base, x)
    with torch.no_grad():
        assert_close(ours(x), expected, atol=1e-6 * expected.abs().max().item())
    assert len(report.loaded) == len(base.weights)


def test_training_gives_the_same_features_and_statistics(tmp_path: Path) -> None:
    base, ours = backbone(), KerasResNetV2().train()
    x = torch.rand(2, 3, 48, 40)
    base.save_weights(tmp_path / "x.weights.h5")
    load_keras_weights(ours, tmp_path / "x.weights.h5")

    with torch.no_grad():
        y, expected = ours(x), base(x.movedim(1, -1), training=True)

    # Keras takes a variance as E[x^2] - E[x]^2, which rounds; 8 values stand behind the last ones
    assert_close(y, expected, atol=1e-3)
    base.save_weights(tmp_path / "after.weights.h5")
    after = KerasResNetV2()
    load_keras_weights(after, tmp_path / "after.weights.h5")
    for (name, buffer), moved in zip(ours.named_buffers(), after.buffers(), strict=True):
        if "running" in name:
            assert_close(buffer, moved, rtol=1e-5, atol=1e-5, message=name)


def test_the_deepest_has_the_layers_of_keras() -> None:
    keras.utils.clear_session()
    layers = list(resnet_v2_layers(KerasResNetV2(depth=152, device="meta").state_dict()))

    assert [layer.name for layer in layers] == [layer.name for layer in backbone(depth=152).layers]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_layout_loads_with_a_head_and_an_optimizer(
    tmp_path: Path, model, ending: str
) -> None:
    ours = ours_with_head()
    x = torch.rand(1, 3, 40, 33)

    report = load_keras_weights(ours, saved(model, tmp_path, ending))

    with torch.no_grad():
        assert_close(ours(x).softmax(1), theirs(model, x), rtol=0, atol=1e-6)
    assert len(report.loaded) == len(model.weights)


@pytest.mark.parametrize("ending", ["legacy weights", "without names"])
def test_a_network_inside_a_network_loads(tmp_path: Path, nested, ending: str) -> None:
    ours = ours_with_head()
    x = torch.rand(1, 3, 40, 33)

    load_keras_weights(ours, saved(nested, tmp_path, ending))

    with torch.no_grad():
        assert_close(ours(x).softmax(1), theirs(nested, x), rtol=0, atol=1e-6)


def test_the_optimizer_is_reported(tmp_path: Path, model) -> None:
    skipped = {
        ending: load_keras_weights(ours_with_head(), saved(model, tmp_path, ending)).skipped
        for ending in (".weights.h5", ".h5")
    }

    assert "optimizer" in skipped[".weights.h5"]
    assert "optimizer_weights" in skipped[".h5"]


@pytest.mark.parametrize("ending", [".weights.h5", ".h5"])
def test_files_of_ours_load_in_keras(tmp_path: Path, model, ending: str) -> None:
    ours = ours_with_head()
    load_keras_weights(ours, saved(model, tmp_path, ".weights.h5"))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(1.01)
    save_keras_weights(ours, tmp_path / f"ours{ending}")
    x = torch.rand(1, 3, 40, 33)

    other = with_head(backbone(), nested=False)
    other.load_weights(tmp_path / f"ours{ending}")

    with torch.no_grad():
        assert_close(theirs(other, x), ours(x).softmax(1), rtol=0, atol=1e-6)


def test_files_of_ours_have_the_tree_of_keras(tmp_path: Path) -> None:
    keras.utils.clear_session()
    base = backbone(32)
    base.save_weights(tmp_path / "theirs.weights.h5")
    ours = KerasResNetV2()

    save_keras_weights(ours, tmp_path / "ours.weights.h5")

    assert tree(tmp_path / "ours.weights.h5") == tree(tmp_path / "theirs.weights.h5")


def tree(path: Path) -> dict[str, object]:
    parts = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, part: parts.setdefault(
                name, (dict(part.attrs), getattr(part, "shape", None), getattr(part, "dtype", None))
            )
        )
    return parts


def test_a_changed_byte_in_an_archive_is_noticed(tmp_path: Path, model) -> None:
    path = saved(model, tmp_path, ".keras")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        content[archive.getinfo("model.weights.h5").header_offset + 10**6] ^= 1
    path.write_bytes(content)

    with pytest.raises(ValueError, match="file must be a whole archive; got damage"):
        load_keras_weights(ours_with_head(), path)
