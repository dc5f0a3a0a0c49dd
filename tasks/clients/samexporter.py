"""samexporter's own inference, with the names and shapes that other clients adopted."""

from __future__ import annotations

from dataclasses import replace

from tasks.clients.client import (
    META_DECODER,
    META_ENCODER,
    SAM_NEVER_SENDS,
    SAMEXPORTER_DECODER,
    SAMEXPORTER_ENCODER,
    Client,
)

CLIENT = Client(
    name="samexporter",
    version="0.5.0",
    encoder=SAMEXPORTER_ENCODER,
    decoder=SAMEXPORTER_DECODER,
)

# For SAM 1, its own inference places the image at the top left, and paints every mask.
FOR_SAM = replace(
    CLIENT,
    layout="sam",
    encoder=META_ENCODER,
    decoder=META_DECODER,
    interface="padded image size",
    masks=("best", "ranked", "multi", "single", "all"),
    prompts=("one",),
    resize="longest side",
    loads=("onnx",),
    padding_point=True,
    image_sizes=(1024,),
    never_sends=SAM_NEVER_SENDS,
)
