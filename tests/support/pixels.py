"""What is to be seen in a picture."""

import io

import numpy as np
from PIL import Image, ImageColor


def find_pixels(png: bytes, colour: str, tolerance: int) -> np.ndarray:
    """Return for each pixel, by row and column, whether red, green and blue are each as near to a colour's."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), int)
    return np.asarray((np.abs(pixels - ImageColor.getrgb(colour)) < tolerance).all(axis=2))
