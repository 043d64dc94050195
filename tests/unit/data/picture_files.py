"""TIFF, PNG and JPEG files as Pillow and tifffile write them."""

import io
from collections.abc import Callable

import numpy as np
import tifffile
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 250, (5, 12, 17)).astype("u1")
COLOURS = np.random.default_rng(1).integers(0, 250, (12, 17, 3)).astype("u1")


def tiff(array: np.ndarray, **options: object) -> bytes:
    """A file as tifffile writes it."""
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def picture(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """A picture as Pillow writes it."""
    return saved(Image.fromarray(array), kind, **options)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """A picture that Pillow has, in a format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pillow_stack(array: np.ndarray, **options: object) -> bytes:
    """A TIFF stack as Pillow writes it."""
    first, *others = (Image.fromarray(plane) for plane in array)
    return saved(first, "TIFF", save_all=True, append_images=others, **options)


def palette() -> Image.Image:
    """A picture of four colours, by their indices."""
    image = Image.fromarray(PIXELS[0] % 4).convert("P")
    image.putpalette([*range(12)])
    return image


TIFFS: dict[str, Callable[[], bytes]] = {
    "plain": lambda: tiff(PIXELS),
    "big": lambda: tiff(PIXELS, bigtiff=True),
    "deflate": lambda: tiff(PIXELS.astype("u2"), compression="zlib", predictor=2),
    "strips": lambda: tiff(PIXELS, compression="zlib", rowsperstrip=5),
    "tiles": lambda: tiff(PIXELS, tile=(16, 16), compression="zlib"),
    "ImageJ": lambda: tiff(
        PIXELS, imagej=True, resolution=(2, 4), metadata={"spacing": 3, "unit": "mm", "axes": "ZYX"}
    ),
    "OME": lambda: tiff(PIXELS, ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.5}),
    "RGB": lambda: tiff(COLOURS, photometric="rgb", planarconfig="contig"),
    "LZW": lambda: pillow_stack(PIXELS, compression="tiff_lzw"),
    "PackBits": lambda: pillow_stack(PIXELS, compression="packbits"),
    "bits": lambda: saved(Image.fromarray(PIXELS[0] > 99), "TIFF"),
}
PNGS: dict[str, Callable[[], bytes]] = {
    "grey": lambda: picture(PIXELS[0]),
    "16 bits": lambda: picture(PIXELS[0].astype("u2") * 257),
    "RGB": lambda: picture(COLOURS),
    "1 bit": lambda: picture(PIXELS[0] > 99),
    "palette": lambda: saved(palette()),
}
JPEGS: dict[str, Callable[[], bytes]] = {
    "grey": lambda: picture(PIXELS[0], "JPEG"),
    "RGB": lambda: picture(COLOURS, "JPEG"),
    "progressive": lambda: picture(COLOURS, "JPEG", progressive=True),
}
