"""A small deployed folder: real graphs that do almost nothing, and a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import manifests
from onnx import TensorProto, helper
from project import ROOT

from tasks.clients.contract import Tensor
from tasks.proof.manifest import File, Graph, Manifest, as_json

IMAGE = Tensor("image", "float32", (1, 3, 64, 64), "image")
EMBEDDING = Tensor("image_embed", "float32", (1, 3, 64, 64), "image_embed")
POINTS = Tensor("point_coords", "float32", ("num_prompts", "num_points", 2), "point_coords")
MASKS = Tensor("masks", "float32", ("num_prompts", "num_points", 2), "masks")
GRAPHS = {"encoder.onnx": (IMAGE, EMBEDDING), "decoder.onnx": (POINTS, MASKS)}
DOCUMENT = "config.json"


def graph(tensors: tuple[Tensor, Tensor], seed: int = 1, weights: bytes = b"") -> bytes:
    """A graph that returns its input, with unused weights."""
    values = [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.shape) for t in tensors]
    node = helper.make_node("Identity", [tensors[0].name], [tensors[1].name])
    made = helper.make_graph([node], f"graph {seed}", values[:1], values[1:])
    if weights:
        tensor = helper.make_tensor("w", TensorProto.UINT8, [len(weights)], weights, raw=True)
        made.initializer.append(tensor)
    return bytes(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    )


def contents(seed: int = 1) -> dict[str, bytes]:
    """The files beside the manifest."""
    graphs = {name: graph(tensors, seed) for name, tensors in GRAPHS.items()}
    return {**graphs, DOCUMENT: b"{}\n"}


def file_of(content: bytes, **changes: Any) -> File:
    return File(len(content), hashlib.sha256(content).hexdigest(), **changes)


def manifest_of(files: Mapping[str, bytes], **changes: Any) -> Manifest:
    encoder, decoder = ((name, (takes,), (gives,)) for name, (takes, gives) in GRAPHS.items())
    return manifests.manifest(
        **{
            "files": {name: file_of(content) for name, content in files.items()},
            "encoder": Graph(*encoder),
            "decoder": Graph(*decoder),
            "license": "Apache-2.0",
            "origin": "us",
            **changes,
        }
    )


def text_of(manifest: Manifest) -> str:
    return json.dumps(as_json(manifest), indent=2) + "\n"


def write(folder: Path, seed: int = 1, **changes: Any) -> Path:
    """Write an intact folder; another ``seed`` makes other graphs."""
    files = contents(seed)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_text(text_of(manifest_of(files, **changes)))
    return folder


def relist(folder: Path, name: str, content: bytes) -> None:
    """Write a file, and list it in the manifest."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = as_json(file_of(content))
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def swap(folder: Path) -> None:
    """Swap the names of encoder and decoder."""
    (folder / "encoder.onnx").rename(folder / "e")
    (folder / "decoder.onnx").rename(folder / "encoder.onnx")
    (folder / "e").rename(folder / "decoder.onnx")


def link(folder: Path) -> None:
    """Move the encoder out of the folder, and put a symlink to it in its place."""
    (folder / "encoder.onnx").rename(folder.parent / "encoder.onnx")
    (folder / "encoder.onnx").symlink_to("../encoder.onnx")


def run(
    command: str, *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a doit command as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "doit", command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


check = partial(run, "check")
