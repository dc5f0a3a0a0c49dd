"""NimbusImage: a web tool for microscopy, in its repository at 818835a.

`src/pipelines/samPipeline.ts` imports ``onnxruntime-web/webgpu``, the build with both providers. It
loads ``encoder.ort`` on WebGPU and ``decoder.onnx`` on WASM, places the image at the top left,
appends a padding point to prompts without a box, and uses the first mask. `onnxModels.ts` treats a
folder as SAM 2 only if its name begins with ``sam2_``. For SAM 1 it loads ``encoder.onnx``, and
feeds the six inputs of segment-anything's own decoder by name: every output of the encoder, so the
encoder must return only the embedding, and the rest. Its menu lists ``vit_b`` and no other SAM 1.
"""

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
from tasks.clients.runtime import RuntimePath

CLIENT = Client(
    name="nimbusimage",
    version="818835a",
    encoder=SAMEXPORTER_ENCODER,
    decoder=replace(SAMEXPORTER_DECODER, formats=("onnx",)),
    masks=("ranked", "best", "single"),  # it uses the first of several
    prompts=("one", "many"),
    resize="longest side",
    formats=("onnx", "ort"),
    padding_point=True,
    folder_prefix="sam2_",
    image_sizes=(1024,),
    paths=(RuntimePath("wasm", "webgpu"), RuntimePath("webgpu", "webgpu")),
)

FOR_SAM = replace(
    CLIENT,
    layout="sam",
    encoder=META_ENCODER,
    decoder=META_DECODER,
    interface="padded image size",
    prompts=("one",),
    formats=("onnx",),
    loads=("onnx",),
    folder_prefix="",
    never_sends=SAM_NEVER_SENDS,
)
