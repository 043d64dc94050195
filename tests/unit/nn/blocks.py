"""What the tests of blocks share: random states, weights moved between programs, kernels in 3D."""

import numpy as np
import torch
from torch import Tensor, nn


def settled(module: nn.Module) -> nn.Module:
    """Give every parameter and statistic a random value, in evaluation mode."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor.is_floating_point():
                fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 4
                tensor.normal_(std=fan_in**-0.5)
    return module.eval()


def copy_in_order(source: nn.Module, target: nn.Module) -> nn.Module:
    """Copy the tensors of one module into another that has as many, of the same sizes."""
    given, taken = (list(module.state_dict().values()) for module in (source, target))
    with torch.no_grad():
        for a, b in zip(given, taken, strict=True):
            assert a.squeeze().shape == b.squeeze().shape, (a.shape, b.shape)
            b.copy_(a.reshape(b.shape))
    return target.eval()


def in_middle_slice(weight: Tensor, shape: torch.Size) -> Tensor:
    """Return a 2D kernel as a 3D one whose other slices are zero; a norm's weight as it is."""
    if weight.shape == shape:
        return weight
    volume = weight.new_zeros(shape)
    volume.select(2, shape[2] // 2).copy_(weight)
    return volume


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def numbers(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.detach().double().numpy()


def linear(tokens: np.ndarray, layer: nn.Module) -> np.ndarray:
    """Return a linear layer or a convolution with a kernel of 1 of channels-last tokens."""
    weight = numbers(layer.weight)
    output = tokens @ weight.reshape(len(weight), -1).T
    return output if layer.bias is None else output + numbers(layer.bias)


def attention_by_formula(
    tokens: np.ndarray, block: nn.Module, heads: int, bias: np.ndarray | float = 0.0
) -> np.ndarray:
    """Return the self-attention of tokens with ``qkv`` and ``proj``, head by head; mask by bias."""
    dim = tokens.shape[-1] // heads
    q, k, v = np.split(linear(tokens, block.qkv), 3, axis=-1)
    output = np.empty_like(tokens)
    biases = np.broadcast_to(bias, (heads, len(tokens), len(tokens)))
    for head in range(heads):
        part = slice(head * dim, (head + 1) * dim)
        logits = q[:, part] @ k[:, part].T / np.sqrt(dim) + biases[head]
        output[:, part] = softmax(logits) @ v[:, part]
    return linear(output, block.proj)


def tokens_of(image: Tensor) -> np.ndarray:
    """Return one sample as rows of channels."""
    return numbers(image).reshape(len(image), -1).T


def image_of(tokens: np.ndarray, like: Tensor) -> np.ndarray:
    """Return rows of channels as one sample."""
    return tokens.T.reshape(-1, *like.shape[1:])
