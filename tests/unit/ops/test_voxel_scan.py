"""voxel_scan: the pass in pieces equals plain formulas, and keeps and builds next to nothing."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from medkit.ops import _chunks, voxel_scan
from medkit.ops._channel_scan import Formula, channel_terms, scan_channels
from medkit.ops._class_scan import class_terms, scan_classes
from medkit.testing import assert_close
from medkit.testing._options import pairwise
from unit.losses.refusals import refuses

BATCH, CHANNELS, VOXELS = 3, 4, 50


def weights(kind: str | None) -> Tensor | None:
    if kind is None:
        return None
    kept = torch.rand(BATCH, VOXELS) < 0.6
    return kept if kind == "bool" else kept * torch.rand(BATCH, VOXELS)


def results_and_gradient(
    terms: tuple[Tensor, ...], x: Tensor, weight: Tensor | None
) -> list[Tensor]:
    """Return the terms that count, and the gradient of a mixture of them."""
    kept = [
        term if weight is None or term.shape != weight.shape else torch.where(weight > 0, term, 0)
        for term in terms
    ]
    mixed = sum(
        (term * torch.linspace(-1, 2, term.numel()).reshape(term.shape)).sum() for term in kept
    )
    return [*kept, *torch.autograd.grad(mixed, x)]


@pytest.mark.parametrize("elements", [8, 300, 10**6])
@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("weight", [None, "bool", "float"])
def test_classes_in_pieces_equal_the_plain_formula(
    elements: int, factors: bool, weight: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chunks, "PIECE_ELEMENTS", elements)
    x = torch.randn(BATCH, CHANNELS, VOXELS, dtype=torch.float64, requires_grad=True)
    index, w = torch.randint(0, CHANNELS, (BATCH, VOXELS)), weights(weight)
    k = torch.rand(CHANNELS, dtype=torch.float64) if factors else None

    fast = results_and_gradient(scan_classes(x, index, w, k), x, w)
    plain = results_and_gradient(class_terms(x, index, w, k, logits=True), x, w)

    for a, b in zip(fast, plain, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize(
    "case",
    pairwise(
        {
            "elements": (8, 300, 10**6),
            "kind": ("softmax", "sigmoid"),
            "target": ("values", "zeros and ones", "map"),
            "weight": (None, "bool", "float"),
            "factors": (0, 1, 2),
            "smoothing": (0.0, 0.1),
            "gamma": (0.0, 0.5, 2.0),
        }
    ),
    ids=str,
)
def test_channels_in_pieces_equal_the_plain_formula(
    case: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chunks, "PIECE_ELEMENTS", case["elements"])
    x = torch.randn(BATCH, CHANNELS, VOXELS, dtype=torch.float64, requires_grad=True)
    target = torch.rand(BATCH, CHANNELS, VOXELS)
    if case["target"] == "map":
        target = torch.randint(0, CHANNELS, (BATCH, VOXELS))
    elif case["target"] == "zeros and ones":
        target = target.round()
    w, rows = weights(case["weight"]), case["factors"]
    k = torch.rand(rows, CHANNELS, dtype=torch.float64) if rows else None
    if k is not None and (rows == 1 or case["kind"] == "softmax"):
        k = k[0]
    formula = Formula(case["kind"], k, case["smoothing"], case["gamma"])

    fast = results_and_gradient(scan_channels(x, target, w, formula), x, w)
    plain = results_and_gradient(channel_terms(x, target, w, formula), x, w)

    for a, b in zip(fast, plain, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_map_and_its_channels_give_the_same(activation: str) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 4, 5))
    channels = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
    options = {"activation": activation, "class_weight": (1.0, 2.0, 4.0), "label_smoothing": 0.1}

    a, b = voxel_scan(x, labels, **options), voxel_scan(x, channels, **options)

    for left, right in zip(
        (*a.overlap, a.cross_entropy), (*b.overlap, b.cross_entropy), strict=True
    ):
        assert_close(left, right)


def test_labels_of_probabilities_spread_their_smoothing() -> None:
    p = torch.tensor([[[0.7], [0.2], [0.1]]])

    scan = voxel_scan(p, torch.tensor([[0]]), activation=None, label_smoothing=0.3)

    logs = [math.log(v) for v in (0.7, 0.2, 0.1)]
    assert_close(scan.cross_entropy, torch.tensor([[-0.7 * logs[0] - 0.1 * sum(logs)]]))


def saved_bytes(*arguments: Tensor, **options: object) -> int:
    """Return the bytes kept for the backward pass beside the storage of the arguments."""
    known = {a.untyped_storage().data_ptr() for a in arguments}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scan = voxel_scan(*arguments, **options)
        (scan.overlap.intersection.sum() + scan.cross_entropy.sum()).sin()
    return sum(kept.values())


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("target", ["map", "channels"])
def test_keeps_less_than_a_channel_for_the_backward_pass(activation: str, target: str) -> None:
    x = torch.randn(1, 8, 20, 20, 20, requires_grad=True)
    labels = torch.randint(0, 8, (1, 20, 20, 20))
    channels = torch.rand(1, 8, 20, 20, 20)

    kept = saved_bytes(x, labels if target == "map" else channels, activation=activation)

    assert kept <= 4 * 20**3 + 1024


class LargestNew(TorchDispatchMode):
    """Remembers the largest tensor that an operation made and how many had the size of it."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view and not func._schema.is_mutable:
            self.sizes.append(result.numel())
        return result


@pytest.mark.parametrize("options", [{}, {"class_weight": (1.0,) * 8, "label_smoothing": 0.1}])
def test_builds_no_one_hot_and_one_tensor_of_the_size_of_the_input(
    options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward none; backward the gradient itself."""
    monkeypatch.setattr(_chunks, "PIECE_ELEMENTS", 2**17)
    x = torch.randn(1, 8, 2**17, requires_grad=True)
    labels = torch.randint(0, 8, (1, 2**17))

    with LargestNew() as forward:
        scan = voxel_scan(x, labels, **options)
        total = scan.overlap.intersection.sum() - scan.overlap.predicted.sum()
        total = total + scan.cross_entropy.sum()
    with LargestNew() as backward:
        total.backward()

    assert max(forward.sizes) < x.numel()
    assert backward.sizes.count(x.numel()) == 1


def test_an_exponent_makes_one_map_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the surprise that it is made of."""
    monkeypatch.setattr(_chunks, "PIECE_ELEMENTS", 2**12)
    x = torch.randn(1, 3, 2**14, requires_grad=True)
    labels = torch.randint(0, 3, (1, 2**14))

    with LargestNew() as forward:
        total = voxel_scan(x, labels, gamma=2.0, needs="cross_entropy").cross_entropy.sum()
    with LargestNew() as backward:
        total.backward()

    assert forward.sizes.count(2**14) == 2
    assert backward.sizes.count(2**14) == 1


def test_the_number_of_threads_changes_no_bit() -> None:
    x, labels = torch.randn(2, 3, 40, 40, 40), torch.randint(0, 3, (2, 40, 40, 40))
    threads = torch.get_num_threads()
    results = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        results.append(voxel_scan(x, labels))
    torch.set_num_threads(threads)

    for other in results[1:]:
        for a, b in zip(results[0].overlap, other.overlap, strict=True):
            assert torch.equal(a, b)
        assert torch.equal(results[0].cross_entropy, other.cross_entropy)


def test_no_samples_and_no_voxels_give_empty_sums() -> None:
    for shape in ((0, 3, 4), (2, 3, 0)):
        x = torch.zeros(shape, requires_grad=True)

        scan = voxel_scan(x, torch.zeros(shape[0], shape[2], dtype=torch.long))
        (scan.overlap.predicted.sum() + scan.cross_entropy.sum()).backward()

        assert scan.overlap.intersection.shape == shape[:2]
        assert not scan.overlap.intersection.any()
        assert x.grad.shape == shape


def test_vectorized_gradients_of_torch_func_agree() -> None:
    x, labels = torch.randn(2, 3, 7, dtype=torch.float64), torch.randint(0, 3, (2, 7))

    def total(logits: Tensor) -> Tensor:
        scan = voxel_scan(logits, labels)
        return (scan.overlap.intersection**2).sum() + scan.cross_entropy.sum()

    leaf = x.clone().requires_grad_()
    total(leaf).backward()

    assert_close(torch.func.grad(total)(x), leaf.grad)


def test_an_exponent_goes_without_label_smoothing() -> None:
    x, labels = torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long)

    with refuses("gamma"):
        voxel_scan(x, labels, gamma=2.0, label_smoothing=0.1)
    with refuses("gamma"):
        voxel_scan(x, labels, gamma=-1.0)


def test_classes_have_no_factor_for_what_is_outside() -> None:
    with refuses("class_weight"):
        voxel_scan(torch.zeros(1, 2, 3), torch.zeros(1, 3).long(), class_weight=torch.ones(2, 2))


def test_unknown_activation_is_refused() -> None:
    with refuses("activation"):
        voxel_scan(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long), activation="tanh")
