"""Networks as one exported program for all sizes."""

import torch

from medkit.nn import UNet3D
from medkit.testing import assert_close


def test_a_unet_exports_with_free_sizes() -> None:
    model = UNet3D(channels=(4, 4, 4)).eval()
    free = {
        axis: torch.export.Dim(name, min=5, max=256)
        for axis, name in ((2, "d"), (3, "h"), (4, "w"))
    }

    with torch.no_grad():
        program = torch.export.export(
            model, (torch.randn(2, 1, 13, 14, 15),), dynamic_shapes=(free,)
        )
        for size in ((16, 33, 20), (9, 8, 7)):
            x = torch.randn(2, 1, *size)
            assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)
