"""The demo runs, writes what it says, aligned with its input, and can be stopped and resumed."""

import importlib.util
import json
import signal
from importlib import resources
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("nilearn")
nibabel = pytest.importorskip("nibabel")
pytest.importorskip("skimage")

SCRIPT = Path(__file__).parents[2] / "examples" / "segment_brain_mri.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("segment_brain_mri", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def out(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    example.main(["--quick", "--device", "cpu", "--out", str(folder)])
    return folder


def template(name: str) -> nibabel.Nifti1Image:
    folder = resources.files("nilearn") / "datasets" / "data"
    return nibabel.load(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")


def test_prediction_opens_aligned_with_the_image(out: Path) -> None:
    prediction, image = nibabel.load(out / "prediction.nii.gz"), template("t1")
    labels = np.asarray(prediction.dataobj)

    assert labels.shape == image.shape
    assert np.allclose(prediction.affine, image.affine)
    assert set(np.unique(labels)) <= {0, 1, 2, 3}
    x, y, z = (np.unique(indices) for indices in labels.nonzero())
    assert x.min() >= 70 and x.max() < 118  # noqa: PT018  the piece that --quick predicts
    assert z.min() >= 40 and z.max() < 88  # noqa: PT018
    assert len(y) > 150


def test_pictures_and_numbers_are_written(out: Path) -> None:
    for name in ("brain_segmentation.png", "history.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    scores = json.loads((out / "metrics.json").read_text())["dice of the unseen part"]

    assert list(scores) == ["segformer3d", "otsu"]
    for values in scores.values():
        assert list(values) == ["mean", "CSF", "grey matter", "white matter"]
        assert all(0 <= value <= 1 for value in values.values())


def test_labels_are_the_most_probable_tissue(example: ModuleType) -> None:
    image, truth = example.load_head()
    t1, grey, white = (np.asarray(template(k).dataobj).astype(int).T for k in ("t1", "gm", "wm"))
    labels = truth.data[0].numpy()

    assert np.array_equal(image.data[0].numpy(), t1)
    assert ((labels == 0) == (t1 == 0)).all()
    assert (grey[labels == 2] >= white[labels == 2]).all()
    assert (white[labels == 3] > grey[labels == 3]).all()
    assert (grey + white)[labels == 1].max() <= 2 * 255 // 3 + 1


def test_no_window_of_the_unseen_part_reaches_the_training_part(example: ModuleType) -> None:
    last_seen = example.TEST.stop - 1 + example.WINDOW - 1

    assert last_seen < example.TRAIN.start
    assert example.TEST.stop <= example.VALIDATE.start
    assert example.VALIDATE.stop <= example.TRAIN.start


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--quick", "--device", "cpu", "--out", str(tmp_path)]
    scheduler = example.WarmupCosine
    steps: list[int] = []

    class Interrupted(scheduler):
        def step(self, *args: int) -> None:
            super().step(*args)
            steps.append(1)
            if len(steps) == 2:  # the first call is the constructor's
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(example, "WarmupCosine", Interrupted)
        with pytest.raises(SystemExit, match=r"is complete\. Go on with --resume"):
            example.main(arguments)
    assert (tmp_path / "checkpoints" / "step_000000001" / "weights.pt").exists()

    example.main([*arguments, "--resume"])

    assert (tmp_path / "metrics.json").exists()
    assert (tmp_path / "checkpoints" / "step_000000004").exists()


def test_another_network_cannot_go_on_and_says_so(example: ModuleType, out: Path) -> None:
    arguments = ["--quick", "--device", "cpu", "--out", str(out), "--resume"]

    with pytest.raises(SystemExit, match=r"(?s)cannot go on: .* does not fit.*options it began"):
        example.main([*arguments, "--model", "segformer3d-plain"])
