"""Draws time-lapses with labelled objects, the same for the same seed.

They look like `tasks.drawing.scenes`, but their objects move: they test whether a tracker follows
an object, separates it from its neighbours, and finds it again. Seeds below `FIRST_TRAINING_CLIP`
are held out: no training uses them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.drawing.clip import Clip
from tasks.drawing.scenes import Floats, as_bytes, blurred, smooth

FIRST_TRAINING_CLIP = 1_000_000
WAVES = np.array([2, 3, 4, 5])  # of an outline


@dataclass(frozen=True)
class Body:
    """An object's course: for each frame its middle (T, 2), radius (T,), turn (T,) and waves.

    A radius of 0 means that the object is absent. ``sides`` is 0 for round objects; ``fill`` is the
    place in the texture that it is cut from.
    """

    middles: Floats
    radii: Floats
    turns: Floats
    phases: Floats
    amplitudes: Floats
    flat: float
    sides: int
    tone: Floats
    fill: tuple[int, int]


@dataclass(frozen=True)
class Look:
    """How a clip is painted, after the three kinds of `tasks.drawing.scenes`."""

    kind: str
    ground: Floats
    tint: Floats
    texture: Floats
    rough: float
    opacity: float
    rim: float
    edge: float
    blur: float
    noise: float
    fading: float


def time_lapse(
    seed: int, length: int = 24, height: int = 1024, width: int = 1024, scale: float = 1
) -> Clip:
    """Objects that move, deform, divide, leave and return, pass one another and are hidden.

    :param scale: of all sizes; with 1 they match a scene of 1024 pixels, and a smaller frame is
        then a part of one.
    """
    random = np.random.default_rng([seed, 1])
    kind = str(random.choice(["fluorescence", "fluorescence", "bright", "shapes"]))
    bodies = population(random, length, height, width, scale, kind)
    bodies = pushed([moving(random, body) for body in bodies])
    if len(bodies) > 1 and random.random() < 0.4:
        first, second = random.permutation(len(bodies))[:2]
        bodies[second] = passing(random, bodies[first], bodies[second])
    bodies = [excursion(random, body, height, width) for body in bodies]
    for number in range(len(bodies)):
        if random.random() < 0.1:
            bodies[number], daughter = divided(random, bodies[number])
            bodies.append(daughter)
    bars = []
    if random.random() < 0.35:
        bars.append(bar(random, bodies, length, height, width))
    return painted(random, bodies, look(random, kind, height, width, scale), bars)


def population(
    random: np.random.Generator, length: int, height: int, width: int, scale: float, kind: str
) -> list[Body]:
    """Bodies at rest that cover about a share of the frame, some of them beside another."""
    typical = np.exp(random.uniform(np.log(20), np.log(100)))
    spread, coverage = random.uniform(0.05, 0.35), random.uniform(0.1, 0.4)
    rim = typical * scale
    bodies: list[Body] = []
    area = 0.0
    while area < coverage * (height + rim) * (width + rim) and len(bodies) < 60:
        radius = scale * float(np.clip(typical * np.exp(random.normal(0, spread)), 14, 150))
        area += np.pi * radius * radius
        middle = random.uniform((-rim / 2, -rim / 2), (height + rim / 2, width + rim / 2))
        if bodies and random.random() < 0.3:
            angle = random.uniform(0, 2 * np.pi)
            beside = bodies[random.integers(len(bodies))]
            reach = 0.9 * (radius + beside.radii[0])
            middle = beside.middles[0] + reach * np.array([np.sin(angle), np.cos(angle)])
        crowded = any(
            np.hypot(*(each.middles[0] - middle)) < 0.75 * (radius + each.radii[0])
            for each in bodies
        )
        if crowded:  # bodies overlap only later, when they move
            continue
        bodies.append(
            Body(
                middles=np.tile(middle, (length, 1)),
                radii=np.full(length, radius),
                turns=np.full(length, random.uniform(0, np.pi)),
                phases=np.tile(random.uniform(0, 2 * np.pi, 4), (length, 1)),
                amplitudes=random.normal(0, 0.09 / WAVES),
                flat=random.uniform(0.6, 1),
                sides=int(random.choice([0, 0, 3, 4, 5, 6])) if kind == "shapes" else 0,
                tone=random.uniform(0, 1, 3),
                fill=(int(random.integers(height)), int(random.integers(width))),
            )
        )
    return bodies


def moving(random: np.random.Generator, body: Body) -> Body:
    """The body on a curved course, turning and growing a little, its outline waving."""
    length = len(body.radii)
    speed = body.radii[0] * random.uniform(0, 0.3) * random.choice([0.1, 0.5, 1])
    heading = random.uniform(0, 2 * np.pi) + np.cumsum(random.normal(0, 0.25, length))
    steps = speed * np.stack([np.sin(heading), np.cos(heading)], axis=1)
    steps[0] = 0
    turns = body.turns + random.normal(0, 0.06) * np.arange(length)
    phases = body.phases + np.cumsum(random.normal(0, 0.15, (length, 4)), axis=0)
    growth = np.exp(random.normal(0, 0.006) * np.arange(length))
    return replace(
        body,
        middles=body.middles + np.cumsum(steps, axis=0),
        turns=turns,
        phases=phases,
        radii=body.radii * growth,
    )


def pushed(bodies: list[Body]) -> list[Body]:
    """The bodies, pushed aside by one another where they would overlap by more than a little.

    Cells on a dish do so: they touch, but seldom lie on one another.
    """
    if not bodies:
        return []
    middles = np.stack([body.middles for body in bodies], axis=1)  # (T, N, 2)
    radii = np.stack([body.radii for body in bodies], axis=1)
    aside = np.zeros_like(middles[0])
    for at in range(len(middles)):
        reach = 0.85 * (radii[at][:, None] + radii[at])
        np.fill_diagonal(reach, 0)
        for _ in range(4):
            here = middles[at] + aside
            ways = here[:, None] - here
            distances = np.maximum(np.hypot(ways[..., 0], ways[..., 1]), 1e-6)
            overlaps = np.maximum(reach - distances, 0) / distances
            aside += 0.5 * (overlaps[..., None] * ways).sum(axis=1)
        middles[at] += aside
    return [replace(body, middles=middles[:, n]) for n, body in enumerate(bodies)]


def passing(random: np.random.Generator, still: Body, other: Body) -> Body:
    """The other body, on a course across the first one."""
    length, reach = len(still.radii), still.radii[0] + other.radii[0]
    angle = random.uniform(0, 2 * np.pi)
    along, across = np.array([[np.sin(angle), np.cos(angle)], [np.cos(angle), -np.sin(angle)]])
    way = np.linspace(-1, 1, length) * reach * min(random.uniform(1.2, 2.2), 0.15 * length)
    aside = random.uniform(-0.8, 0.8) * reach
    return replace(other, middles=still.middles + way[:, None] * along + aside * across)


def excursion(random: np.random.Generator, body: Body, height: int, width: int) -> Body:
    """The body; one near the border can leave, stay outside for some frames, and return."""
    length, radius = len(body.radii), float(body.radii.max())
    row, column = body.middles[0]
    distances = np.array([row, height - row, column, width - column])
    side = int(distances.argmin())
    way = distances[side] + 1.6 * radius
    rise = int(np.ceil(way / (0.7 * radius)))
    stay = int(random.integers(2, 5))
    if not distances[side] > 0 or 2 * rise + stay + 2 > length or random.random() < 0.6:
        return body
    start = int(random.integers(1, length - 2 * rise - stay))
    corners = np.cumsum([start, rise, stay, rise])
    out = np.interp(np.arange(length), corners, [0, way, way, 0])
    outward = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)][side])
    return replace(body, middles=body.middles + out[:, None] * outward)


def divided(random: np.random.Generator, body: Body) -> tuple[Body, Body]:
    """The body and a smaller daughter that parts from its side; the body keeps its identity."""
    length = len(body.radii)
    at = int(random.integers(1, max(2, length - 1)))
    parted = np.clip((np.arange(length) - at) / 3, 0, 1)
    angle = random.uniform(0, 2 * np.pi)
    share = random.uniform(0.45, 0.65)
    away = body.radii[0] * (0.4 + parted * (0.5 + share))
    middles = body.middles + away[:, None] * np.array([np.sin(angle), np.cos(angle)])
    there = np.arange(length) >= at
    daughter = replace(body, middles=middles, radii=body.radii * share * there)
    return replace(body, radii=body.radii * (1 - 0.12 * parted)), daughter


@dataclass(frozen=True)
class Bar:
    """A straight band in front of everything: its normal, half width, colour, and for each frame
    its distance (T,) from the frame's corner along the normal.
    """

    normal: tuple[float, float]
    half: float
    color: Floats
    offsets: Floats


def bar(
    random: np.random.Generator, bodies: list[Body], length: int, height: int, width: int
) -> Bar:
    """A band that sweeps over one of the bodies, wide enough to hide it."""
    body = bodies[random.integers(len(bodies))]
    angle = random.uniform(0, 2 * np.pi)
    normal = (float(np.sin(angle)), float(np.cos(angle)))
    radius = float(body.radii.max())
    half = radius * random.uniform(1.1, 1.7)
    meeting = int(random.integers(length // 4 + 1, max(length // 4 + 2, 3 * length // 4)))
    speed = radius * random.uniform(0.3, 1.0)
    there = float(body.middles[meeting] @ np.array(normal))
    offsets = there + speed * (np.arange(length) - meeting)
    return Bar(normal, half, random.uniform(0, 1, 3), offsets)


def look(random: np.random.Generator, kind: str, height: int, width: int, scale: float) -> Look:
    """Light, ground, texture and noise of a clip."""
    side = max(height, width)
    bumps = max(2, round(side / 1024 / scale * 3))
    shade = surface(random, height, width, bumps)[..., None]
    texture = surface(random, height, width, max(4, round(side / 1024 / scale * 55))) - 0.5
    tint: Floats = np.ones(3)
    if kind == "fluorescence":
        ground: Floats = (0.04 + random.uniform(0, 0.16) * shade) * np.ones(3)
        if random.random() < 0.5:
            color = random.dirichlet((0.6, 0.6, 0.6))
            tint = 0.15 + 0.85 * color / color.max()
    elif kind == "bright":
        ground = (0.85 + 0.25 * shade) * (
            random.uniform(0.65, 0.95, 3) if random.random() < 0.5 else random.uniform(0.6, 0.95)
        )
        ground = ground * np.ones(3)
        tint = random.uniform(0.25, 0.9, 3)
    else:
        ground = (0.7 + 0.6 * shade) * random.uniform(0, 1, 3)
    return Look(
        kind=kind,
        ground=ground.astype(np.float32),
        tint=tint,
        texture=texture,
        rough=random.uniform(0, 0.5),
        opacity=random.uniform(0.3, 0.8),
        rim=random.choice([-1, 1]) * random.uniform(0.05, 0.35),
        edge=scale * random.uniform(2, 6),
        blur=scale * random.uniform(0, 2),
        noise=random.uniform(0.003, 0.04),
        fading=random.uniform(-0.01, 0.005),
    )


def painted(random: np.random.Generator, bodies: list[Body], how: Look, bars: list[Bar]) -> Clip:
    """The frames, with the bodies painted in a random order, and the object of each pixel."""
    height, width = how.ground.shape[:2]
    length = len(bodies[0].radii) if bodies else 1
    frames = np.empty((length, height, width, 3), np.uint8)
    labels = np.zeros((length, height, width), np.int32)
    order = random.permutation(len(bodies))
    brightness = random.uniform(0.3, 0.8) * random.uniform(0.6, 1, len(bodies))
    for at in range(length):
        image = how.ground.copy()
        for index in order:
            visible = inside_of(bodies[index], at, height, width)
            if visible is None:
                continue
            where, inside, cut = visible
            texture = how.texture[np.ix_(*cut)]
            paint(image[where], inside, texture, bodies[index].tone, brightness[index], how)
            labels[at][where][inside > 0] = index + 1
        for each in bars:
            row, column = np.ogrid[:height, :width]
            away = np.abs(row * each.normal[0] + column * each.normal[1] - each.offsets[at])
            covered = np.clip(each.half - away, 0, 1)[..., None].astype(np.float32)
            image += covered * (each.color.astype(np.float32) - image)
            labels[at][covered[..., 0] > 0.5] = 0
        image *= 1 + how.fading * at
        if how.blur > 0.3:
            image = np.stack([blurred(image[..., c], how.blur) for c in range(3)], axis=-1)
        noise = random.normal(0, how.noise, (height, width, 1)).astype(np.float32)
        tint = how.tint if how.kind == "fluorescence" else 1
        frames[at] = as_bytes((image + noise) * np.float32(tint))
    return Clip(frames, labels)


def paint(
    image: Floats, inside: Floats, texture: Floats, tone: Floats, brightness: float, how: Look
) -> None:
    """Paint a body onto a part of the image."""
    if how.kind == "fluorescence":
        soft = np.clip(inside / how.edge, 0, 1)[..., None]
        glow = (brightness * (1 + how.rough * texture))[..., None]
        image += soft * (0.3 * image + glow - image)
    elif how.kind == "bright":
        soft = np.clip(inside / 2, 0, 1)[..., None]
        own = how.tint * (0.8 + 0.4 * tone[0]) * (1 + 0.6 * how.rough * texture[..., None])
        edge = np.exp(-(((inside - how.edge) / how.edge) ** 2))[..., None]
        image += soft * (how.opacity * (own - image) + how.rim * edge)
    else:
        soft = np.clip(inside, 0, 1)[..., None]
        image += soft * (tone - image)


Visible = tuple[tuple[slice, slice], Floats, tuple[NDArray[np.int64], NDArray[np.int64]]]


def inside_of(body: Body, at: int, height: int, width: int) -> Visible | None:
    """The part of a frame around a body, how far inside its outline each pixel of that part is, and
    the body's part of the texture; None if the body is not on the frame.
    """
    radius, middle = float(body.radii[at]), body.middles[at]
    if radius < 1:
        return None
    reach = 1.5 * radius + 2
    low = np.clip(np.floor(middle - reach), 0, (height, width)).astype(int)
    high = np.clip(np.ceil(middle + reach), 0, (height, width)).astype(int)
    if (high <= low).any():
        return None
    rows, columns = np.arange(low[0], high[0]), np.arange(low[1], high[1])
    down = (rows - middle[0]).astype(np.float32)[:, None]
    right = (columns - middle[1]).astype(np.float32)[None]
    cosine, sine = np.cos(body.turns[at]), np.sin(body.turns[at])
    along = cosine * right + sine * down
    across = (cosine * down - sine * right) / body.flat
    angle = np.arctan2(across, along)
    limit = np.full_like(angle, radius)
    if body.sides:
        sector = np.mod(angle, 2 * np.pi / body.sides) - np.pi / body.sides
        limit = radius * np.cos(np.pi / body.sides) / np.cos(sector)
    else:
        for wave, amplitude, phase in zip(WAVES, body.amplitudes, body.phases[at], strict=True):
            limit = limit * (1 + amplitude * np.cos(wave * angle + phase))
    inside = ((limit - np.hypot(along, across)) * np.sqrt(body.flat)).astype(np.float32)
    start = np.round(middle).astype(int)
    cut = (
        (rows - start[0] + body.fill[0]) % height,
        (columns - start[1] + body.fill[1]) % width,
    )
    return (slice(low[0], high[0]), slice(low[1], high[1])), inside, cut


def surface(random: np.random.Generator, height: int, width: int, detail: int) -> Floats:
    """A random surface between about 0 and 1, with ``detail`` bumps along its longer side."""
    return smooth(random, max(height, width), detail)[:height, :width]
