"""Recomputing blocks changes memory and nothing else."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from medkit.train import ModelEma, checkpoint_blocks


class _Block(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm3d(width)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return x + scale * self.drop(torch.tanh(self.norm(self.conv(x))))


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 1), _Block(), _Block(), nn.Conv3d(4, 1, 1))


def _chosen(name: str, module: nn.Module) -> bool:
    del name
    return isinstance(module, _Block)


def _step(model: nn.Module) -> tuple[Tensor, list[Tensor], list[Tensor], int]:
    torch.manual_seed(1)
    kept: set[tuple[int, int]] = set()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.add((storage.data_ptr(), storage.nbytes()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(torch.randn(2, 1, 6, 6, 6))
    size = sum(size for _, size in kept)
    output.square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return output, gradients, [b.clone() for b in model.buffers()], size


def test_values_gradients_masks_and_statistics_are_the_same_bits() -> None:
    plain, lean = _model(), _model()
    assert checkpoint_blocks(lean, _chosen) == ("1", "2")

    output, gradients, buffers, size = _step(plain)
    same_output, same_gradients, same_buffers, smaller = _step(lean)

    assert torch.equal(output, same_output)
    assert all(torch.equal(a, b) for a, b in zip(gradients, same_gradients, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(buffers, same_buffers, strict=True))
    assert smaller < 0.5 * size


def test_names_and_classes_stay() -> None:
    plain, lean = _model(), _model()
    checkpoint_blocks(lean, _chosen)

    assert list(lean.state_dict()) == list(plain.state_dict())
    assert isinstance(lean[1], _Block)
    assert type(lean[1]).__name__ == "_Block"
    assert checkpoint_blocks(lean, _chosen) == ("1", "2")  # twice is once


def test_a_copy_computes_with_its_own_weights() -> None:
    model = _model()
    checkpoint_blocks(model, _chosen)
    copy = deepcopy(model)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()

    assert copy(torch.ones(1, 1, 3, 3, 3)).abs().max() == 0
    ModelEma(model).copy_to(copy)
    assert torch.equal(copy.eval()(torch.ones(1, 1, 3, 3, 3)),
                       model.eval()(torch.ones(1, 1, 3, 3, 3)))  # fmt: skip


def test_keyword_arguments_reach_the_block() -> None:
    plain, lean = _Block().eval(), _Block().eval()
    lean.load_state_dict(plain.state_dict())
    checkpoint_blocks(lean, _chosen)
    x = torch.randn(1, 4, 3, 3, 3)

    assert torch.equal(plain(x, scale=0.5), lean(x, scale=0.5))


def test_it_compiles_and_runs_without_gradients() -> None:
    model = _model().eval()
    x = torch.randn(1, 1, 3, 3, 3)
    expected = model(x)
    checkpoint_blocks(model, _chosen)

    with torch.no_grad():
        assert torch.equal(model(x), expected)
    assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(x), expected)


def test_choosing_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="select must be true for at least one module; got Lin"):
        checkpoint_blocks(nn.Linear(1, 1), _chosen)
