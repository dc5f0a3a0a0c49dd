"""Draws stacks of slices with labelled objects, the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from demo_training.time_lapse import look, painted, population
from tasks.drawing.clip import Clip


def stack(
    seed: int, length: int = 24, height: int = 1024, width: int = 1024, scale: float = 1
) -> Clip:
    """Slices through ellipsoids that appear, grow, shrink and vanish; sizes as in `time_lapse`."""
    random = np.random.default_rng([seed, 2])
    kind = str(random.choice(["fluorescence", "bright"]))
    bodies = []
    for body in population(random, length, height, width, scale, kind):
        middle, half = random.uniform(-2, length + 2), random.uniform(0.25, 0.9) * length
        away = (np.arange(length) - middle) / half
        radii = body.radii * np.sqrt(np.clip(1 - away**2, 0, 1))
        tilt = random.normal(0, 0.15, 2) * body.radii[0]
        middles = body.middles + away[:, None] * tilt
        bodies.append(replace(body, radii=radii, middles=middles))
    return painted(random, bodies, look(random, kind, height, width, scale), [])
