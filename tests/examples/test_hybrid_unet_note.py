"""What the note of the hybrid U-Net example says of the original, measured beside medkit.

The rules of the original stand here as its formulas, from its description.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medkit.losses import DeepSupervision, DiceLoss, dice_loss
from medkit.nn import DeepSupervised, DropPath, HybridUNet3D
from medkit.testing import assert_close
from medkit.train import WarmupPoly, param_groups

NORMS = (nn.GroupNorm, nn.InstanceNorm3d, nn.LayerNorm)


@pytest.fixture(scope="module")
def network() -> HybridUNet3D:
    torch.manual_seed(0)
    return HybridUNet3D(4, 4, base_channels=2, deep_supervision=2, drop_path_rate=0.15)


def test_a_training_step_can_be_taken_with_class_maps(network: HybridUNet3D) -> None:
    deep, loss_fn = DeepSupervised(network), DeepSupervision(DiceLoss())
    target = torch.randint(4, (1, 24, 24, 24))

    loss = loss_fn(deep(torch.randn(1, 4, 24, 24, 24)), target)
    loss.backward()

    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert loss_fn(network(torch.randn(1, 4, 24, 24, 24)), target).ndim == 0  # and validation


def test_full_attention_on_the_third_level_would_take_17_gigabytes(network: HybridUNet3D) -> None:
    tokens, heads, half = 32**3, 8, 2  # of a patch of 128^3, at a quarter of its resolution

    assert heads * tokens**2 * half == 17_179_869_184
    assert type(network.encoder[2].transformer.attention).__name__ == "AxialAttention3D"


def test_drop_path_reaches_its_rate_and_not_half_of_it(network: HybridUNet3D) -> None:
    original = torch.linspace(0, 0.15, 9)[:5].max()  # nine rates, of which five blocks take theirs
    rates = [m.rate for m in network.encoder.modules() if isinstance(m, DropPath)]

    assert_close(original, 0.075)
    assert math.isclose(max(rates), 0.15)


def test_norms_inside_a_sequential_do_not_decay(network: HybridUNet3D) -> None:
    words = ("bias", "norm", "bn", "pos_embed", "cls_token")
    of_norms = {
        f"{name}.{each}"
        for name, module in network.named_modules()
        if isinstance(module, NORMS)
        for each, _ in module.named_parameters(recurse=False)
    }
    by_name = {name for name in of_norms if not any(word in name for word in words)}
    decaying, free = param_groups(network, 1e-4)
    kept = {id(parameter) for parameter in decaying["params"]}
    parameters = dict(network.named_parameters())

    assert by_name  # the rule by name would let these decay
    assert not [name for name in of_norms if id(parameters[name]) in kept]
    assert free["weight_decay"] == 0


def test_the_schedule_is_a_number_after_its_end() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    schedule = WarmupPoly(optimizer, 400, warmup_steps=10, power=0.9, min_lr=1e-7)

    original = (1 - (401 - 10) / (400 - 10)) ** 0.9
    assert isinstance(original, complex)
    with pytest.raises(TypeError):
        max(1e-7, 1e-3 * original)
    assert schedule.lr_at(401) == schedule.lr_at(4000) == [1e-7]


def test_draws_of_dropout_reach_every_level_of_the_decoder(network: HybridUNet3D) -> None:
    calls = []
    handle = network.dropout.register_forward_hook(lambda *_: calls.append(1))
    network.eval()
    network(torch.randn(1, 4, 17, 17, 17))
    handle.remove()

    assert len(calls) == 5
    assert network.dropout.p == 0.1
    assert not any(isinstance(m, nn.Dropout3d) and m.p == 0 for m in network.modules())


def test_logits_between_0_and_1_are_still_logits() -> None:
    torch.manual_seed(0)
    logits = torch.rand(2, 3, 8, 8, 8)
    target = F.one_hot(torch.randint(3, (2, 8, 8, 8)), 3).movedim(-1, 1).float()

    def original(x: Tensor) -> Tensor:
        if x.max() > 1 or x.min() < 0:
            x = x.softmax(1)
        overlap, size = (x * target).sum((2, 3, 4)), (x + target).sum((2, 3, 4))
        return 1 - ((2 * overlap + 1) / (size + 1)).mean()

    right = dice_loss(logits.softmax(1), target, activation=None, smooth=1)

    assert_close(dice_loss(logits, target, smooth=1), right)
    assert abs(original(logits) - right) > 0.02
    assert_close(original(logits - 10), right)  # the same softmax, other than by the trick


def test_class_weights_leave_a_perfect_prediction_at_zero() -> None:
    target = torch.randint(3, (1, 8, 8, 8))
    perfect = 100.0 * F.one_hot(target, 3).movedim(-1, 1).float()
    score = 1 - dice_loss(perfect, target)

    assert_close(1 - 2 * score, -1.0)  # the original multiplies the score by its weight
    assert_close(dice_loss(perfect, target, class_weight=torch.full((3,), 2.0)), 0.0, atol=1e-6)
