"""Start a script in several processes: ``python -m medkit.train.launch --nproc-per-node 2 x.py``.

All options are torchrun's. The one difference: torch keeps one store for all restarts of a run, so
that after a crash processes may read the addresses of the dead ones and wait for them. Here every
restart gets a store of its own.
"""

import os

from torch.distributed.run import main  # pyright: ignore[reportUnknownVariableType]  torch leaves it untyped

if __name__ == "__main__":
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    main()
