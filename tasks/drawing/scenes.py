"""Draws images with known masks: nuclei, cells and plain shapes, the same for the same seed.

They show whether masks are meaningful: a swapped axis, a shifted coordinate or a wrong scale lowers
the IoU with the truth (`truth` of a model in the configuration, tasks/inference/truth.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Scene:
    """An RGB image (S, S, 3), and for each pixel the number of its object (S, S), 0 outside."""

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]


def scene(seed: int, size: int = 1024) -> Scene:
    """A scene; the seed determines its kind."""
    random = np.random.default_rng(seed)
    kinds: list[Callable[[np.random.Generator, int], Scene]] = [
        *[fluorescence] * 3,
        *[bright_field] * 2,
        shapes,
    ]
    return kinds[random.integers(len(kinds))](random, size)


def fluorescence(random: np.random.Generator, size: int) -> Scene:
    """Bright nuclei on a dark, unevenly lit ground; some touch or lie under others."""
    light = 0.04 + random.uniform(0, 0.16) * smooth(random, size, 3)
    labels = np.zeros((size, size), np.int32)
    contrast = random.uniform(0.3, 0.8)
    texture = smooth(random, size, int(random.integers(20, 90))) - 0.5
    rough = random.uniform(0, 0.5)
    for number, (where, inside) in enumerate(bodies(random, size, random.uniform(0.02, 0.4)), 1):
        brightness = contrast * random.uniform(0.5, 1.0)
        soft = np.clip(inside / random.uniform(2.0, 6.0), 0, 1)
        glow = brightness * soft * (1 + rough * texture[where])
        light[where] = light[where] * (1 - soft) + (light[where] * 0.3 + glow) * soft
        labels[where][inside > 0] = number
    light *= 0.7 + 0.6 * smooth(random, size, 2)
    image = blurred(light, random.uniform(0, 2.5))
    image = image + random.normal(0, random.uniform(0.003, 0.05), image.shape)
    color = random.dirichlet((0.6, 0.6, 0.6)) if random.random() < 0.5 else np.ones(3)
    tint = 0.15 + 0.85 * color / color.max()
    return Scene(as_bytes(image[..., None] * tint), labels)


def bright_field(random: np.random.Generator, size: int) -> Scene:
    """Translucent cells with a dark or bright rim on a light ground, some with a nucleus."""
    ground = random.uniform(0.65, 0.95, 3) if random.random() < 0.5 else random.uniform(0.6, 0.95)
    image = np.ones((size, size, 3), np.float32) * ground
    image *= (0.85 + 0.25 * smooth(random, size, 3))[..., None]
    labels = np.zeros((size, size), np.int32)
    body = random.uniform(0.25, 0.9, 3)
    texture = smooth(random, size, int(random.integers(20, 90))) - 0.5
    rough, opacity = random.uniform(0, 0.3), random.uniform(0.2, 0.8)
    rim, rim_width = random.choice([-1, 1]) * random.uniform(0.05, 0.35), random.uniform(2, 6)
    for number, (where, inside) in enumerate(bodies(random, size, random.uniform(0.02, 0.4)), 1):
        soft = np.clip(inside / 2, 0, 1)[..., None]
        tone = body * random.uniform(0.8, 1.2) * (1 + rough * texture[where][..., None])
        edge = np.exp(-(((inside - rim_width) / rim_width) ** 2))[..., None]
        filled = image[where] * (1 - opacity) + tone * opacity + rim * edge
        if random.random() < 0.5:
            core = np.clip((inside - 0.5 * inside.max()) / 3, 0, 1)[..., None]
            filled = filled * (1 - 0.5 * core)
        image[where] = image[where] * (1 - soft) + filled * soft
        labels[where][inside > 0] = number
    image = np.stack([blurred(image[..., c], random.uniform(0, 1.5)) for c in range(3)], axis=-1)
    image = image + random.normal(0, random.uniform(0.003, 0.03), image.shape)
    return Scene(as_bytes(image), labels)


def shapes(random: np.random.Generator, size: int) -> Scene:
    """Discs, boxes and polygons in plain colours on a plain or shaded ground."""
    image = np.ones((size, size, 3), np.float32) * random.uniform(0, 1, 3)
    image *= (0.7 + 0.6 * smooth(random, size, 2))[..., None]
    labels = np.zeros((size, size), np.int32)
    drawn = bodies(random, size, random.uniform(0.1, 0.5), corners=True)
    for number, (where, inside) in enumerate(drawn, 1):
        soft = np.clip(inside, 0, 1)[..., None]
        image[where] = image[where] * (1 - soft) + random.uniform(0, 1, 3) * soft
        labels[where][inside > 0] = number
    image = image + random.normal(0, random.uniform(0, 0.03), image.shape)
    return Scene(as_bytes(image), labels)


Body = tuple[tuple[slice, slice], Floats]


def bodies(
    random: np.random.Generator, size: int, coverage: float, corners: bool = False
) -> list[Body]:
    """Bodies that together would cover a share of the image: each a region and a distance map.

    The map has about the distance to the outline in pixels, negative outside.
    """
    typical = np.exp(random.uniform(np.log(18), np.log(110)))
    spread = random.uniform(0.05, 0.4)
    placed: list[Body] = []
    area = 0.0
    while area < coverage * size * size and len(placed) < 150:
        radius = float(np.clip(typical * np.exp(random.normal(0, spread)), 12, 160))
        center = random.uniform(0, size, 2)
        if placed and random.random() < 0.3:  # next to an earlier body, touching or under it
            rows, columns = placed[random.integers(len(placed))][0]
            beside = np.array([(s.start + s.stop) / 2 for s in (rows, columns)])
            angle = random.uniform(0, 2 * np.pi)
            center = beside + 1.7 * radius * np.array([np.sin(angle), np.cos(angle)])
        body = outline(random, size, center, radius, corners)
        if body is not None:
            placed.append(body)
        area += np.pi * radius * radius
    return placed


def outline(
    random: np.random.Generator,
    size: int,
    center: NDArray[np.float64],
    radius: float,
    corners: bool,
) -> Body | None:
    """One body: an ellipse whose radius waves, or a disc, box or polygon."""
    reach = 1.5 * radius + 4
    low = np.clip(np.floor(center - reach), 0, size).astype(int)
    high = np.clip(np.ceil(center + reach), 0, size).astype(int)
    if (high - low < 8).any():
        return None
    y, x = np.mgrid[low[0] : high[0], low[1] : high[1]].astype(np.float32)
    turn = random.uniform(0, np.pi)
    flat = random.uniform(0.55, 1.0)
    down, right = y - center[0], x - center[1]
    along = np.cos(turn) * right + np.sin(turn) * down
    across = (np.cos(turn) * down - np.sin(turn) * right) / flat
    angle = np.arctan2(across, along)
    limit = np.full_like(angle, radius)
    if corners:
        sides = int(random.choice([0, 3, 4, 5, 6]))
        if sides:
            sector = np.mod(angle, 2 * np.pi / sides) - np.pi / sides
            limit = radius * np.cos(np.pi / sides) / np.cos(sector)
    else:
        for wave in (2, 3, 4, 5):
            amplitude = random.normal(0, 0.09 / wave)
            limit = limit * (1 + amplitude * np.cos(wave * angle + random.uniform(0, 2 * np.pi)))
    inside = (limit - np.hypot(along, across)) * np.sqrt(flat)
    where = (slice(low[0], high[0]), slice(low[1], high[1]))
    return where, inside.astype(np.float32)


def smooth(random: np.random.Generator, size: int, detail: int) -> Floats:
    """A random surface between about 0 and 1, with ``detail`` bumps along a side."""
    coarse = random.uniform(0, 1, (detail + 1, detail + 1)).astype(np.float32)
    fine = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(fine, np.float32)


def blurred(channel: Floats, radius: float) -> Floats:
    """A Gaussian blur; radius is its standard deviation in pixels."""
    picture = Image.fromarray(np.clip(channel * 255, 0, 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def as_bytes(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Values 0 to 1 as bytes."""
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
