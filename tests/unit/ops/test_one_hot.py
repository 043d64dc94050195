"""one_hot and class_index: labels to channels, and labels that are safe to gather with."""

import pytest
import torch
import torch.nn.functional as F

from medkit.ops import class_index, one_hot
from unit.losses.refusals import refuses


def test_equals_torch_with_channels_first() -> None:
    labels = torch.randint(0, 5, (2, 3, 4, 6))

    channels = one_hot(labels, num_classes=5)

    assert channels.dtype == torch.float32
    assert torch.equal(channels, F.one_hot(labels, 5).movedim(-1, 1).float())


@pytest.mark.parametrize("ignored", [255, -1, 1])
def test_ignored_voxels_belong_to_no_class(ignored: int) -> None:
    labels = torch.tensor([[0, 1, 2, ignored]], dtype=torch.int16)

    channels = one_hot(labels, num_classes=3, ignore_index=ignored, dtype=torch.uint8)

    assert channels.dtype == torch.uint8
    assert not channels[0, :, 3].any()
    assert channels.sum(1).tolist() == [[1, int(ignored != 1), 1, 0]]


def test_booleans_are_classes_zero_and_one() -> None:
    channels = one_hot(torch.tensor([[True, False]]), num_classes=2)

    assert channels.tolist() == [[[0.0, 1.0], [1.0, 0.0]]]


def test_no_voxels_give_no_voxels() -> None:
    assert one_hot(torch.zeros(2, 0, dtype=torch.long), num_classes=3).shape == (2, 3, 0)


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    with refuses("labels"):
        one_hot(torch.tensor([[0, label]]), num_classes=3)
    with refuses("depth"):
        class_index(torch.tensor([label]), num_classes=3, ignore_index=7, name="depth")


def test_floats_are_no_labels() -> None:
    with refuses("labels"):
        one_hot(torch.zeros(1, 2), num_classes=3)


def test_no_class_at_all_is_refused() -> None:
    with refuses("num_classes"):
        one_hot(torch.zeros(1, 2, dtype=torch.long), num_classes=0)


def test_index_is_safe_and_labels_are_left_alone() -> None:
    labels = torch.tensor([0, 255, 2], dtype=torch.uint8)

    index, counted = class_index(labels, num_classes=3, ignore_index=255)

    assert index.tolist() == [0, 0, 2]
    assert counted is not None
    assert counted.tolist() == [True, False, True]
    assert labels.tolist() == [0, 255, 2]
    assert class_index(labels.clamp(max=2), num_classes=3).counted is None


def test_messages_say_what_helps() -> None:
    labels = torch.tensor([0, 1, 255])
    with pytest.raises(ValueError, match=r"^labels must be in \[0, 2\); got .*ignore_index=255$"):
        class_index(labels, num_classes=2)
    with pytest.raises(ValueError, match=r"from 0 to 255$"):
        class_index(labels, num_classes=2, ignore_index=-1)
    with refuses("labels"):
        class_index(labels.numpy(), num_classes=2)
    with pytest.raises(TypeError, match=r"got torch.float32: call \.long\(\)$"):
        class_index(labels.float(), num_classes=2)
