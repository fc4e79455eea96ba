"""Pictures as the bytes of a file."""

import io
from typing import Any

import numpy as np
from PIL import Image


def encoded(picture: np.ndarray | Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """A picture as Pillow writes it."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def noise_png(seed: int) -> bytes:
    """Grey noise of 80 x 60, another picture for each seed."""
    return encoded(np.random.default_rng(seed).integers(0, 255, (80, 60), dtype=np.uint8))
