"""The real graph and actions; only what a child process would compute is made up.

A browser is any program that the configuration names, beside npm packages in `web/`. Environment:
CHEAP_EXPORT=constant makes every export the same bytes; CHEAP_BELOW=<ending of an encoder's name>
gives that variant's masks an IoU of 0.5; CHEAP_FAIL=<function> makes one fail;
CHEAP_DIFFERENCE lets verify find fault, CHEAP_REFUSAL and CHEAP_IOU the browser,
CHEAP_REFUSAL_OF="<file> <provider>" that provider for one variant;
CHEAP_HANG=<function> makes one open the FIFO at CHEAP_FIFO and wait to be killed.
"""

import hashlib
import json
import os
import threading
from pathlib import Path

from tasks import child
from tasks.staleness import versions


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).hexdigest().encode()


def make_synthetic(architecture, seed, destination):
    Path(destination).write_bytes(digest(architecture, seed) * 1000)
    return {"parameters": 1}


def write_graphs(checkpoint, encoder, decoder, **options):
    made_from = [Path(checkpoint).read_bytes(), options, versions("torch", "onnx")]
    if os.environ.get("CHEAP_EXPORT") == "constant":
        made_from = []
    Path(encoder).write_bytes(digest("encoder", *made_from) * 1000)
    Path(decoder).write_bytes(digest("decoder", *made_from) * 1000)
    return {}


def fold(pairs):
    for source, destination in pairs:
        made_by = versions("onnxsim")
        Path(destination).write_bytes(digest(Path(source).read_bytes(), made_by) * 1000)
    return {"nodes": [[2, 1], [2, 1]]}


def measure(architecture, masks, checkpoint, encoder, decoder, truth):
    difference = 1.0 if os.environ.get("CHEAP_DIFFERENCE") else 0.0
    return {
        "violations": [],
        "tensors": {"encoder": {"inputs": []}, "decoder": {"inputs": []}},
        "figures": {
            "encoder": {"image_embed": difference},
            "prompts": {"one point": {"masks": 0.0, "scores": 0.0}},
        },
        "truth": truth and {"iou": {"1 click": float(os.environ.get("CHEAP_TRUTH", "0.9"))}},
    }


def convert(pairs, precision, format):
    for source, destination in pairs:
        made = digest(Path(source).read_bytes(), precision, format)
        Path(destination).write_bytes(made * {"fp32": 1000, "fp16": 500}.get(precision, 300))
    return {"nodes": [1, 1]}


def write_reference(architecture, masks, checkpoint, draw, count, destination):
    Path(destination).write_bytes(digest(Path(checkpoint).read_bytes(), count))
    return {"images": count, "prompts": 4 * count}


def compare(encoder, decoder, reference, draw, picture):
    below = os.environ.get("CHEAP_BELOW")
    iou = 0.5 if below and encoder.endswith(below) else 0.999
    Path(picture).write_bytes(digest(encoder))
    times = ("encoder_create_ms", "encoder_run_ms", "decoder_create_ms", "decoder_run_ms")
    return {
        "images": 8,
        "prompts": 32,
        "mask_iou": {"mean": iou, "worst": iou},
        "logit_error": 0.1,
        "score_error": 0.1,
        "native": dict.fromkeys(times, 10.0),
    }


def prove(encoder, decoder, tensors, scratch, executable, webgpu, webgpu_encoder, draw):
    package = Path("web/node_modules/onnxruntime-web/package.json")
    version = json.loads(package.read_text())["version"]
    part = {"create_ms": 100, "run_ms": 1000}
    proof = {
        "decoder": part,
        "differences": {"encoder": {}, "prompts": {}},
        "ious": {"one point": float(os.environ.get("CHEAP_IOU", "1"))},
        "mask_iou": 1.0,
    }
    adapter = {"adapter": {"name": "pretended", "software": True}}
    providers = {"wasm": {"encoder": part, **proof}}
    if webgpu:
        providers["webgpu"] = {**adapter, **proof, **({"encoder": part} if webgpu_encoder else {})}
    refused, _, provider = os.environ.get("CHEAP_REFUSAL_OF", "").partition(" ")
    error = os.environ.get("CHEAP_REFUSAL")
    if refused and encoder.endswith(refused):
        error = f"{provider} refused"
        providers[provider] = {"error": error}
    return {
        "browser": "Chromium 1",
        "runtime": f"onnxruntime-web {version}",
        "threads": 2,
        "providers": providers,
        "memory": {"renderer": 1 << 30},
        "error": error,
    }


def run(function, arguments, log, verbose):
    name = function.split(":")[1]
    if os.environ.get("CHEAP_HANG") == name:
        for argument in ("encoder", "destination"):
            if argument in arguments and name != "measure":
                Path(arguments[argument]).write_bytes(b"half")
        with Path(os.environ["CHEAP_FIFO"]).open("w"):
            threading.Event().wait()
    if os.environ.get("CHEAP_FAIL") == name:
        raise child.StageError(f"{name} was told to fail")
    return {**globals()[name](**arguments), "peak_memory": 1 << 30}


child.run = run

from dodo import *  # noqa: E402, F403
