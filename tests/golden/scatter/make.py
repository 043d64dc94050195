"""Write scatter.npz: results and gradients of torch_scatter for six small problems.

python tests/golden/scatter/make.py
"""

from pathlib import Path

import numpy as np
import torch
import torch_scatter

REDUCTIONS = {
    "sum": torch_scatter.scatter_sum,
    "mean": torch_scatter.scatter_mean,
    "min": torch_scatter.scatter_min,
    "max": torch_scatter.scatter_max,
}


def main() -> None:
    rng = np.random.default_rng(20240229)
    arrays: dict[str, np.ndarray] = {}
    problems = {
        "vector": (rng.normal(size=12).astype("f4"), rng.integers(0, 7, 12), 0, None),
        "middle": (rng.normal(size=(3, 8, 2)), rng.integers(0, 5, 8), 1, 7),
        "full": (rng.normal(size=(2, 9)).astype("f4"), rng.integers(0, 4, (2, 9)), -1, None),
        "rows": (rng.normal(size=(2, 5, 3)), rng.integers(0, 3, (2, 5)), -2, None),
        "integers": (rng.integers(-9, 9, (10, 2)), rng.integers(0, 6, 10), 0, 6),
        "ties": (rng.integers(0, 3, 15).astype("f4"), rng.integers(0, 4, 15), 0, 5),
    }
    for name, (src, index, dim, dim_size) in problems.items():
        arrays |= {f"{name}.src": src, f"{name}.index": index, f"{name}.dim": np.array(dim)}
        if dim_size is not None:
            arrays[f"{name}.dim_size"] = np.array(dim_size)
        for reduction, scatter in REDUCTIONS.items():
            x = torch.from_numpy(src)
            x.requires_grad_(x.is_floating_point())
            result = scatter(x, torch.from_numpy(index), dim, dim_size=dim_size)
            values = result[0] if isinstance(result, tuple) else result
            arrays[f"{name}.{reduction}"] = values.detach().numpy()
            if isinstance(result, tuple):
                arrays[f"{name}.arg{reduction}"] = result[1].numpy()
            if x.requires_grad:
                weight = torch.from_numpy(rng.normal(size=values.shape)).to(values.dtype)
                (gradient,) = torch.autograd.grad((values * weight).sum(), x)
                arrays[f"{name}.{reduction}.weight"] = weight.numpy()
                arrays[f"{name}.{reduction}.gradient"] = gradient.numpy()
    np.savez_compressed(Path(__file__).with_name("scatter.npz"), **arrays)


if __name__ == "__main__":
    main()
