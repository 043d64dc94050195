"""One picture of every public plot function, of made-up data that is the same at each call."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from medkit import plot
from medkit._core.optional import require
from medkit.data import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 50


def pixels(figure: "Figure") -> np.ndarray:
    """Return the picture (height, width, RGB) as it is saved."""
    canvas = require("matplotlib.backends.backend_agg", extra="plot").FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def head() -> tuple[Volume, torch.Tensor]:
    """Return a head of 20 x 40 x 36 voxels of 3 x 1 x 1.5 mm, and two organs in it."""
    z, y, x = np.ogrid[-1:1:20j, -1:1:40j, -1:1:36j]
    skull = np.sqrt((z / 0.9) ** 2 + (y / 0.95) ** 2 + (x / 0.8) ** 2)
    image = np.where(skull < 1, np.where(skull > 0.85, 200, 100 + 30 * y), 10 + 0 * z)
    organ = np.sqrt((z / 0.5) ** 2 + ((y - 0.3) / 0.4) ** 2 + ((x - 0.2) / 0.3) ** 2) < 1
    other = np.sqrt((z / 0.4) ** 2 + ((y + 0.4) / 0.3) ** 2 + ((x + 0.2) / 0.3) ** 2) < 1
    labels = np.where(organ, 1, np.where(other, 2, 0))
    affine = np.array([[0, 0, 1.5, 0], [0, 1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1.0]])
    return Volume(torch.from_numpy(image.astype(np.float32))[None], affine), torch.tensor(labels)


def overlay() -> "Figure":
    image, labels = head()
    found = labels.roll(3, dims=2)
    return plot.overlay(
        image,
        {"Truth": labels, "Prediction": found},
        names={1: "organ", 2: "other"},
        boxes={"unseen": ((5, 4, 4), (15, 16, 14))},
    )


def mosaic() -> "Figure":
    """Contours of labels over slices with a map of uncertainty."""
    image, labels = head()
    p = torch.tensor((labels > 0).numpy() * 0.98 + 0.01).float()
    p = torch.nn.functional.avg_pool3d(p[None], 5, 1, 2)[0]
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    return plot.mosaic(
        image,
        labels=labels,
        heat=entropy,
        heat_label="entropy (nats)",
        names={1: "organ", 2: "other"},
        indices=[4, 7, 10, 13],
    )


def grad_cam() -> "Figure":
    """Where a network looks, over an image."""
    y, x = np.ogrid[-1:1:48j, -1:1:64j]
    image = np.hypot(y, x) < 0.8
    heat = np.exp(-((y - 0.2) ** 2 + (x + 0.3) ** 2) / 0.1)
    return plot.mosaic(
        image.astype(np.float32) + 0.2 * x,
        heat=heat,
        heat_label="Grad-CAM",
        heat_range=(0.0, 1.0),
        spacing=(0.5, 0.25),
    )


def layers() -> "Figure":
    column = np.arange(120)
    upper = 30 + 6 * np.sin(column / 20)
    lower = upper + 25 + 4 * np.cos(column / 11)
    row = np.arange(90)[:, None]
    image = np.where((row > upper) & (row < lower), 150.0, 30.0)
    upper[60:66] = np.nan
    return plot.layers(
        image,
        {"ILM": upper, "BM": lower},
        std={"BM": np.full(120, 3.0)},
        spacing=(0.004, 0.012),
    )


def history() -> "Figure":
    epoch = np.arange(12)
    return plot.history(
        {
            "epoch": epoch.tolist(),
            "train_loss": np.exp(-epoch / 4).tolist(),
            "valid_loss": (np.exp(-epoch / 5) + 0.1).tolist(),
            "dice": (1 - np.exp(-epoch / 3) - 0.002 * epoch**1.5).tolist(),
        },
        best="dice",
    )


def confusion_matrix() -> "Figure":
    counts = np.array([[40, 5, 1, 0], [6, 30, 9, 1], [0, 4, 22, 2], [0, 0, 0, 0]])
    return plot.confusion_matrix(counts, names=("healthy", "mild", "severe", "none"))


def reliability_diagram() -> "Figure":
    generator = np.random.default_rng(0)
    confidence = 0.3 + 0.7 * generator.random(2000)
    return plot.reliability_diagram(confidence, generator.random(2000) < confidence**1.7)


def scene() -> "Figure":
    t = np.linspace(0, 4 * np.pi, 300)
    helix = np.stack([12 * np.cos(t) + 20, 12 * np.sin(t) + 20, 3 * t], axis=1)
    corners = np.array([[10, 10, 0], [30, 10, 0], [20, 30, 0], [20, 18, 20.0]])
    faces = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])
    return plot.scene({"vessel": helix, "organ": corners}, triangles={"organ": faces})


PICTURES: "dict[str, Callable[[], Figure]]" = {
    each.__name__: each
    for each in (
        overlay,
        mosaic,
        grad_cam,
        layers,
        history,
        confusion_matrix,
        reliability_diagram,
        scene,
    )
}
