"""The distance transform is one operator of a compiled graph."""

import torch

from medkit.ops import distance_transform


def test_distances_do_not_break_the_graph() -> None:
    def depth(image: torch.Tensor) -> torch.Tensor:
        return 2 * distance_transform(image > 0.5, spacing=(2.0, 1.0), signed=True)

    image = torch.rand(1, 2, 6, 7)

    compiled = torch.compile(depth, backend="eager", fullgraph=True)

    assert torch.equal(compiled(image), depth(image))


def test_the_operator_keeps_to_its_schema() -> None:
    mask = torch.rand(1, 2, 6, 7) > 0.5
    operator = torch.ops.medkit.distance_transform.default

    torch.library.opcheck(operator, (mask, None, [2.0, 1.0], True, False, torch.float32))
    torch.library.opcheck(operator, (mask, mask, [2.0, 1.0], False, True, torch.float64))
