"""Arguments that hold tensors: single ones, or lists, tuples and mappings of them."""

from collections.abc import Callable, Iterable, Mapping
from typing import cast as as_type

import torch
from torch import Tensor

Tree = object
"""A tensor, a list, tuple or mapping of trees, or anything else, which is left alone."""


def leaves(tree: Tree) -> list[Tensor]:
    """Return the tensors of a tree, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, Mapping):
        return [
            t for value in as_type("Mapping[object, Tree]", tree).values() for t in leaves(value)
        ]
    if isinstance(tree, list | tuple):
        return [t for value in as_type("Iterable[Tree]", tree) for t in leaves(value)]
    return []


def first_leaf(tree: Tree) -> Tensor:
    """Return the first tensor of a tree; raise if it holds none."""
    found = leaves(tree)
    if not found:
        raise TypeError("sample must make at least one tensor")
    return found[0]


def apply(tree: Tree, change: Callable[[Tensor], Tensor]) -> Tree:
    """Return a tree with each tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        items = as_type("Mapping[object, Tree]", tree).items()
        return {key: apply(value, change) for key, value in items}
    if isinstance(tree, list | tuple):
        changed = [apply(value, change) for value in as_type("Iterable[Tree]", tree)]
        return changed if isinstance(tree, list) else tuple(changed)
    return tree


def cast(tree: Tree, dtype: torch.dtype) -> Tree:
    """Return a tree with its floating-point tensors in another dtype."""
    return apply(tree, lambda t: t.to(dtype) if t.is_floating_point() else t)
