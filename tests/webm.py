"""A WebM video made of still images, with Pillow only."""

from __future__ import annotations

import io
import struct
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WEBP_HEADER = 20  # RIFF's header and that of its only chunk, a key frame of VP8


def write_webm(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    rate: int,
    *,
    times: Sequence[int] = (),
    hidden: Container[int] = (),
    sound: int = 0,
) -> None:
    """Write RGB frames (H, W, 3), each a key frame of VP8.

    The container has the elements that https://www.webmproject.org/docs/container requires.

    :param rate: frames per second, unless ``times`` gives the time of each frame.
    :param times: the times of the frames, in milliseconds.
    :param hidden: the indices of frames that are decoded, but not shown.
    :param sound: the length of a silent sound track, in milliseconds; 0: no sound track.
    """
    height, width = frames[0].shape[:2]
    times = times or [index * (1000 // rate) for index in range(len(frames))]
    pictures = [(time, 1, key_frame(each)) for time, each in zip(times, frames, strict=True)]
    for index in range(len(pictures)):
        if index in hidden:
            time, track, content = pictures[index]
            pictures[index] = time, track, bytes([content[0] & ~0x10]) + content[1:]
    silence = [(time, 2, bytes(1600)) for time in range(0, sound, 100)]  # 100 ms at 8 kHz
    tracks = [
        element(
            0xAE,
            *(number(0xD7, 1), number(0x73C5, 1), number(0x83, 1), element(0x86, b"V_VP8")),
            element(0xE0, number(0xB0, width), number(0xBA, height)),
        )
    ]
    if sound:
        heard = element(0xB5, struct.pack(">f", 8000)), number(0x9F, 1), number(0x6264, 16)
        codec = element(0x86, b"A_PCM/INT/LIT")
        numbers = number(0xD7, 2), number(0x73C5, 2), number(0x83, 2)
        tracks.append(element(0xAE, *numbers, codec, element(0xE1, *heard)))
    duration = element(0x4489, struct.pack(">d", max(times[-1] + 1000 // rate, sound)))
    names = element(0x4D80, b"tests"), element(0x5741, b"tests")
    info = element(0x1549A966, number(0x2AD7B1, 1_000_000), duration, *names)
    clusters = [
        element(
            0x1F43B675,
            number(0xE7, time),
            element(0xA3, bytes([0x80 | track, 0, 0, 0x80]), content),
        )
        for time, track, content in sorted(pictures + silence)
    ]
    versions = (number(0x4286, 1), number(0x42F7, 1), number(0x42F2, 4), number(0x42F3, 8))
    head = element(
        0x1A45DFA3, *versions, element(0x4282, b"webm"), number(0x4287, 2), number(0x4285, 2)
    )
    segment = element(0x18538067, info, element(0x1654AE6B, *tracks), *clusters)
    path.write_bytes(head + segment)


def key_frame(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=95)
    content = file.getvalue()
    assert content[12:16] == b"VP8 "
    (size,) = struct.unpack("<I", content[16:WEBP_HEADER])
    return content[WEBP_HEADER : WEBP_HEADER + size]


def element(identifier: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    name = identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
    return name + (len(content) | 1 << 56).to_bytes(8, "big") + content


def number(identifier: int, value: int) -> bytes:
    return element(identifier, value.to_bytes(4, "big"))
