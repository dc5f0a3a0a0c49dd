"""The real task graph and actions; only the results of child processes are fake.

The browser is any program that the configuration names, with npm packages in `web/`. Environment:
CHEAP_EXPORT=constant makes every export the same bytes; CHEAP_BELOW=<ending of an encoder's name>
gives that variant's masks an IoU of 0.5; CHEAP_FAIL=<functions> makes these functions fail;
CHEAP_EDIT=<file> adds a statement to a file while a child runs;
CHEAP_DIFFERENCE makes verify fail, CHEAP_REFUSAL and CHEAP_IOU the browser,
CHEAP_REFUSAL_OF="<file> <provider>" that provider for one variant;
CHEAP_IMPATIENT=1 waits a millisecond where a download would wait a second, and not at all where an
upload would;
CHEAP_PROCESSOR=<words> names the processor that measures;
CHEAP_HANG=<function> makes a function open the FIFO at CHEAP_FIFO and wait to be killed.
"""

import functools
import hashlib
import json
import os
import threading
import types
from pathlib import Path

from tasks.model.trained import TrainedModel
from tasks.proof import integrity
from tasks.remote import download
from tasks.running import child
from tasks.system import machine
from tasks.system.errors import StageError
from tasks.system.files import sha256_of
from tasks.system.versions import versions


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).hexdigest().encode()


def make_synthetic(architecture, seed, destination):
    Path(destination).write_bytes(digest(architecture, seed) * 1000)
    return {"parameters": 1}


def write_graphs(checkpoint, graphs, decoders, **options):
    if Path(checkpoint).read_bytes().startswith(b"unfit"):
        raise StageError(f"{checkpoint} does not fit")
    made_from = [Path(checkpoint).read_bytes(), options, versions("torch", "onnx")]
    if os.environ.get("CHEAP_EXPORT") == "constant":
        made_from = []
    for name, path in graphs.items():
        own = decoders.get(name) if made_from else name
        Path(path).write_bytes(digest(own, *made_from) * 1000)
    return {}


def simplify_graphs(pairs, renamed):
    for source, destination in pairs:
        made_by = versions("onnxsim")
        Path(destination).write_bytes(digest(Path(source).read_bytes(), made_by) * 1000)
    rename(renamed)
    return {"nodes": [[2, 1] for _ in pairs]}


def rename(renamed):
    for graph in renamed:
        content = digest(Path(graph["source"]).read_bytes(), graph["names"])
        Path(graph["destination"]).write_bytes(content * 1000)


def hashes(*variants):
    return {Path(path).name: sha256_of(path) for graphs in variants for path in graphs.values()}


def subject(model):
    return {name: sha256_of(path) for name, path in TrainedModel(**model).files().items()}


def tensor(role, *shape):
    return {"name": role, "dtype": "float32", "shape": shape, "role": role}


STORED = {"size": 1000, "mask_iou": {"mean": 1.0, "worst": 1.0}}
EMBEDDINGS = {"image_size": 1024, "stored": dict.fromkeys(("float32", "float16", "int8"), STORED)}


def measure(model, graphs, truth, clicks, embedding, **options):
    for path in filter(None, (clicks, embedding)):
        Path(path).write_bytes(digest(graphs))
    difference = 1.0 if os.environ.get("CHEAP_DIFFERENCE") else 0.0
    architecture = model["architecture"]
    return {
        "files": hashes(*graphs),
        "against": subject(model),
        "violations": [],
        "tensors": {
            "encoder": {"inputs": [tensor("image", 1, 3, 1024, 1024)], "outputs": []},
            "decoder": {
                "inputs": [tensor("image_embed", 1, 256, 64, 64)],
                "outputs": [tensor("masks", "num_prompts", 3, 256, 256)],
            },
        },
        "differences": {
            "features": {"image_embed": difference},
            "prompts": {"one point": {"masks": 0.0, "scores": 0.0}},
        },
        "architecture": "sam2_hiera_tiny" if architecture == "auto" else architecture,
        "truth": truth
        and {
            "images": 1,
            "objects": 1,
            "iou": {"1 click": float(os.environ.get("CHEAP_TRUTH", "0.9"))},
            "score_correlation": None,
        },
        "placement": None,
        **({"embeddings": EMBEDDINGS} if embedding else {}),
    }


def convert(pairs, precision, format, renamed):
    for source, destination in pairs:
        made = digest(Path(source).read_bytes(), precision, format)
        Path(destination).write_bytes(made * {"fp32": 1000, "fp16": 500}.get(precision, 300))
    rename(renamed)
    return {"nodes": [1 for _ in pairs]}


def write_reference(model, masks, draw, count, destination, embeddings):
    against = subject(model)
    Path(destination).write_text(json.dumps({"count": count, "against": against}))
    return {"images": count, "prompts": 4 * count}


def stored(reference):
    against = json.loads(Path(reference).read_text())["against"]
    return {**against, "reference": sha256_of(reference)}


def compare(graphs, client, masks, prompts, reference, draw, picture, try_extremes):
    below = os.environ.get("CHEAP_BELOW")
    iou = 0.5 if below and next(iter(graphs.values())).endswith(below) else 0.999
    Path(picture).write_bytes(digest(graphs))
    return {
        "files": hashes(graphs),
        "against": stored(reference),
        "images": json.loads(Path(reference).read_text())["count"],
        "prompts": 32,
        "mask_iou": {"mean": iou, "worst": iou},
        "ranking_flips": float(os.environ.get("CHEAP_FLIPS", "0")),
        "logit_error": 0.0005,
        "input_error": 0.0005,
        "input_prompt": "box",
        "score_error": 0.1,
        "lowest": {"prompt": "box", "pixels": 9},
    }


def prove(graphs, reference, scratch, executable, webgpu, webgpu_encoder, **model):
    lock = json.loads(Path("web/package-lock.json").read_text())
    version = lock["packages"]["node_modules/onnxruntime-web"]["version"]
    part = {"create_ms": 100, "run_ms": [1000]}
    proof = {
        "decoder": part,
        "differences": {"features": {}, "prompts": {}},
        "ious": {"one point": float(os.environ.get("CHEAP_IOU", "1"))},
        "mask_iou": float(os.environ.get("CHEAP_IOU", "1")),
    }
    if reference:
        proof["reference_ious"] = {"click": float(os.environ.get("CHEAP_REFERENCE_IOU", "1"))}
    is_q8 = next(iter(graphs.values())).endswith("_quantized.onnx")
    operators = {"MatMulInteger": 7} if is_q8 else {}
    placed = {"webgpu": 100, "cpu": sum(operators.values()), "copies": 0, "cpuOperators": operators}
    adapter = {
        "adapter": {"name": "pretended", "software": True},
        "placement": {"encoder": placed, "decoder": placed},
    }
    providers = {"wasm": {"encoder": part, **proof}}
    if webgpu:
        providers["webgpu"] = {**adapter, **proof, **({"encoder": part} if webgpu_encoder else {})}
    refused, _, provider = os.environ.get("CHEAP_REFUSAL_OF", "").partition(" ")
    words = os.environ.get("CHEAP_REFUSAL")
    if words:
        providers["wasm"] = {"refused": {"words": words, "graph": "encoder"}}
    if refused and graphs["encoder"].endswith(refused):
        providers[provider] = {"refused": {"words": f"{provider} refused", "graph": "encoder"}}
    if os.environ.get("CHEAP_UNAVAILABLE"):
        providers["webgpu"] = {**adapter, "unavailable": os.environ["CHEAP_UNAVAILABLE"]}
    return {
        "files": hashes(graphs),
        "against": stored(reference) if reference else {},
        "browser": "Chromium 1",
        "runtime": f"onnxruntime-web {version}",
        "threads": 2,
        "providers": providers,
        "memory": {"renderer": 1 << 30},
    }


def run(function, arguments, log, verbose, **_):
    name = function.split(":")[1]
    if os.environ.get("CHEAP_HANG") == name:
        if name == "write_graphs":
            Path(arguments["graphs"]["encoder"]).write_bytes(b"half")
        elif name == "simplify_graphs":
            Path(arguments["pairs"][0][1]).write_bytes(b"half")
        with Path(os.environ["CHEAP_FIFO"]).open("w"):
            threading.Event().wait()
    if os.environ.get("CHEAP_EDIT"):
        with Path(os.environ["CHEAP_EDIT"]).open("a") as file:
            file.write("EDITED = True\n")
    if name in os.environ.get("CHEAP_FAIL", "").split():
        raise StageError(f"{name} was told to fail")
    used = {"peak_memory": 1 << 30, "processor": machine.processor()}
    return {**globals()[name](**arguments), **used}


child.run = run
integrity._tensors = lambda folder, manifest, intact: []  # the fake graphs are not ONNX
if os.environ.get("CHEAP_PROCESSOR"):
    machine.processor = lambda: os.environ["CHEAP_PROCESSOR"]
if os.environ.get("CHEAP_IMPATIENT"):
    download.RetryPolicy = functools.partial(download.RetryPolicy, first_wait=0.001)
    from huggingface_hub.utils import _http

    _http.time = types.SimpleNamespace(sleep=lambda seconds: None)

from dodo import *  # noqa: E402, F403
