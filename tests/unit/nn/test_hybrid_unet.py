"""The hybrid U-Net: sizes, memory at 128^3 counted on the meta device, rates that are reached."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medkit.nn import DeepSupervised, DropPath, HybridUNet3D
from medkit.testing import assert_close

SIZES = {
    "s": (5_175_123, 76e9, 4, 12),
    "m": (20_325_539, 244e9, 8, 23),
    "l": (45_451_251, 505e9, 12, 34),
}
"""Parameters, multiply-adds, and GB to train with and without checkpoints, of the docstring."""

GB = 1e9
FLOAT32_STATES = 16
"""Bytes for each parameter: itself, its gradient and two moments."""


def kept(run: Callable[[], object]) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, each storage once."""
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in storages.values())


def largest_part(model: HybridUNet3D, x: Tensor) -> int:
    """Return the bytes that the largest recomputed part keeps, and two gradients as large as
    the largest map inside it."""
    needs: list[int] = []
    widest = [0]

    def measure(part: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        inside = [m for m in part.modules() if isinstance(m, nn.Conv3d | nn.Linear)]
        hooks = [
            m.register_forward_hook(lambda *call: widest.append(call[-1].nbytes)) for m in inside
        ]
        need = kept(lambda: part.forward(*(a.detach().requires_grad_() for a in args)))
        for hook in hooks:
            hook.remove()
        needs.append(need + 2 * max(widest))
        widest[:] = [0]

    for block in (*model.encoder, *model.decoder):
        for part in (block.mbconv1, block.mbconv2, block.transformer, block.shuffle_attention):
            part.register_forward_hook(measure)
    model(x)
    return max(needs)


@pytest.mark.parametrize("variant", SIZES)
def test_a_volume_of_128_trains_within_the_stated_memory(variant) -> None:
    parameters, multiply_adds, checkpointed, plain = SIZES[variant]
    model = HybridUNet3D(variant=variant, device="meta", dtype=torch.bfloat16)
    x = torch.empty(1, 4, 128, 128, 128, device="meta", dtype=torch.bfloat16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(x)
    model.train()

    without = kept(lambda: model(x))
    model.checkpoint = True
    inputs = kept(lambda: model(x))
    model.checkpoint = False
    part = largest_part(model, x)

    count = sum(p.numel() for p in model.parameters())
    assert count == parameters
    assert counter.get_total_flops() / 2 == pytest.approx(multiply_adds, rel=0.01)
    states = FLOAT32_STATES * count
    assert checkpointed - 1 < (states + inputs + part) / GB <= checkpointed < 16
    assert plain - 1.5 < (states + without) / GB <= plain


@pytest.mark.parametrize("attention", ["axial", "window", "reduced"])
def test_no_attention_keeps_all_pairs_of_voxels(attention) -> None:
    model = HybridUNet3D(attention=attention, device="meta", dtype=torch.bfloat16)
    level = model.encoder[2].transformer
    x = torch.empty(1, 128, 32, 32, 32, device="meta", dtype=torch.bfloat16, requires_grad=True)

    assert kept(lambda: level(x)) < 1 * GB < 8 * 32**6 * 2


@pytest.mark.parametrize("size", [(17, 16, 16), (20, 33, 18)])
def test_logits_have_the_size_of_the_input(size: tuple[int, ...]) -> None:
    model = HybridUNet3D(1, 2, base_channels=2, deep_supervision=3).eval()
    x = torch.randn(1, 1, *size)

    logits = DeepSupervised(model)(x)

    assert torch.equal(model(x), logits[0])
    for level, m in enumerate(logits):
        assert m.shape == (1, 2, *(-(-n // 2**level) for n in size))
    assert [m.shape[1] for m in model.features(x)] == [2, 4, 8, 16, 32]


def test_drop_path_reaches_its_rate_in_the_bottleneck_and_grows_from_zero() -> None:
    model = HybridUNet3D(base_channels=2, drop_path_rate=0.4)

    def rates(block: nn.Module) -> set[float]:
        return {round(m.rate, 6) for m in block.modules() if isinstance(m, DropPath)}

    assert [rates(block) for block in model.encoder] == [{0.0}, {0.1}, {0.2}, {0.3}, {0.4}]
    assert rates(model.decoder[0]) == {0.3}


def test_dropout_left_on_gives_samples_that_differ_everywhere() -> None:
    model = HybridUNet3D(1, 2, base_channels=4, dropout=0.3).eval()
    x = torch.randn(1, 1, 32, 16, 16)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))

        model.dropout.train()
        samples = torch.stack([model(x) for _ in range(6)])

    assert float((samples.std(0) > 1e-4).float().mean()) > 0.99


def test_checkpoints_change_no_gradient_and_keep_less() -> None:
    model = HybridUNet3D(1, 2, base_channels=2, dropout=0.2, drop_path_rate=0.2)
    x = torch.randn(2, 1, 18, 16, 16)
    gradients, bytes_kept = [], []
    for checkpoint in (False, True):
        model.checkpoint = checkpoint
        torch.manual_seed(0)
        results: list[Tensor] = []
        bytes_kept.append(kept(lambda results=results: results.append(model(x))))
        model.zero_grad()
        results[0].square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])

    assert bytes_kept[1] < bytes_kept[0] / 3
    for a, b in zip(*gradients, strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_every_head_trains() -> None:
    model = HybridUNet3D(1, 2, base_channels=2, deep_supervision=3, dropout=0.0)

    sum(m.square().sum() for m in model.deep_logits(torch.randn(1, 1, 18, 16, 16))).backward()

    assert all(bool(p.grad.any()) for head in model.heads for p in head.parameters())


def test_learns_to_find_a_ball() -> None:
    torch.manual_seed(0)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 20)] * 3, indexing="ij"))
    centres = 0.6 * torch.rand(4, 3, 1, 1, 1) - 0.3
    target = ((grid - centres).norm(dim=1) < 0.5).long()
    x = target[:, None] + 0.5 * torch.randn(4, 1, 20, 20, 20)
    model = HybridUNet3D(1, 2, base_channels=4)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)

    losses = []
    for _ in range(16):
        loss = nn.functional.cross_entropy(model(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_channels": 3}, "base_channels must be even; got 3"),
        ({"deep_supervision": 4}, "deep_supervision must be at most 3; got 4"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"drop_path_rate": -1}, r"drop_path_rate must be in \[0, 1\)"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
    ],
)
def test_wrong_options_are_named(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HybridUNet3D(**{"base_channels": 2, **options})
