"""Writes predictions until it is killed, as a process of its own."""

import sys
import time

import torch

from medkit.inference import OctPredictionWriter

with OctPredictionWriter(sys.argv[1], boundaries=("ILM", "BM"), image_shape=(24, 6)) as writer:
    for _ in range(1000):
        writer.write(torch.full((4, 3, 20, 6), 1 / 3))
        print("written", flush=True)  # noqa: T201
        time.sleep(0.01)
