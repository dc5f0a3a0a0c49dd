"""The image for prompts where no truth is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def natural_image(height: int, width: int | None = None, seed: int = 0) -> NDArray[np.uint8]:
    """A seeded RGB image (height, width, 3), square by default.

    Shaded bodies on a ground with a natural spectrum: the amplitude of natural images falls off
    about as 1/frequency (Field, 1987).
    """
    import numpy as np

    width = width or height
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height)))
    frequency[0, 0] = 1 / max(height, width)
    image = np.empty((height, width, 3))
    for channel in range(3):
        spectrum = np.fft.fft2(random.standard_normal((height, width))) / frequency
        texture = np.fft.ifft2(spectrum).real
        image[..., channel] = 110 + 25 * texture / texture.std()
    y, x = np.mgrid[0:height, 0:width] / np.reshape((height, width), (2, 1, 1))
    for center_x, center_y, radius in ((0.42, 0.55, 0.17), (0.75, 0.3, 0.1), (0.15, 0.2, 0.07)):
        distance = np.hypot(x - center_x, (y - center_y) * 1.2) / radius
        shade = np.clip(1.3 - distance, 0, 1)[..., None]
        color = random.uniform(60, 230, 3)
        image = np.where(distance[..., None] < 1, color * (0.6 + 0.4 * shade), image)
    return np.clip(image + random.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
