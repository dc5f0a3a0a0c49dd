"""EdgeTAM: SAM 2.1's decoder behind a RepViT, with a memory of latents."""

from __future__ import annotations

from dataclasses import replace

from tasks.model.families import sam2
from tasks.model.published import EDGETAM

FAMILY = replace(
    sam2.FAMILY,
    name="edgetam",
    title="EdgeTAM",
    architectures=(EDGETAM,),
    build="tasks.model.edgetam:build",
    randomize="tasks.model.edgetam:randomize",
    attention=("plain",),  # its encoder has no attention
)
