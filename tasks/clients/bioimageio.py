"""bioimage.io's annotation page, in its repository at 645a3cc: a decoder without an encoder.

`src/components/annotate/hooks/useMicroSamDecoder.ts` gets an image's embedding from a server,
where micro-sam computes it, and feeds the six inputs of segment-anything's own decoder by name: a
box without a padding point, and the size of the encoded image. It uses the first mask.
onnxruntime-web 1.19.2 runs the decoder on WASM with one thread, because the page is not
cross-origin isolated.
"""

from __future__ import annotations

from tasks.clients.client import META_DECODER, META_ENCODER, ON_THE_CPU, Client
from tasks.clients.runtime import RuntimePath

CLIENT = Client(
    name="bioimage.io",
    version="645a3cc",
    layout="sam",
    graphs=("decoder",),
    encoder=META_ENCODER,  # gives the name under which the embedding is fed
    decoder=META_DECODER,
    interface="padded image size",
    masks=("best", "ranked"),
    prompts=("one",),
    resize="longest side",
    loads=("onnx",),
    never_sends={
        "point": "it draws boxes",
        "mask": "it refines no mask",
        "padding label": "a box has no padding point",
        "corner label": "it sends both corners",
        "prompts of different lengths": "it sends one box in a run",
    },
    image_sizes=(1024,),
    refused={
        **dict.fromkeys(
            ("q4", "q4f16"),
            "it contains MatMulNBits of 8 bits, which onnxruntime-web 1.19.2 does not have",
        ),
        "half": ON_THE_CPU,
    },
    paths=(RuntimePath("wasm", "default", "onnxruntime-web-1.19"),),
    wasm_alone=True,
)
