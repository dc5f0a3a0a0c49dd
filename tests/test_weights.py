"""Checkpoints as people have them: told apart by what is in them, read under sam2's names."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface import renamed
from project import ROOT
from safetensors.torch import save_file

from tasks.config.published import PUBLISHED
from tasks.engine.errors import StageError
from tasks.model import load, recognition, weights

NARROW = str(ROOT / "tests/narrow.yaml")
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def own() -> Weights:
    """A small model's weights under sam2's names, no two alike."""
    found = load.build_model(NARROW).state_dict()
    noise = torch.Generator().manual_seed(7)
    return {name: torch.randn(each.shape, generator=noise) for name, each in found.items()}


def of_transformers(own: Weights) -> Weights:
    """As transformers' own conversion names them."""
    return {name: each.contiguous() for name, each in renamed(own).items()}


def with_tied_matrix(own: Weights) -> Weights:
    """As ``save_pretrained`` writes them: of two names of one matrix, the other."""
    found = of_transformers(own)
    matrix = found.pop("prompt_encoder.shared_embedding.positional_embedding")
    return {"shared_image_embedding.positional_embedding": matrix, **found}


FORMS: dict[str, Callable[[Weights, Path], Any]] = {
    "model": lambda own, path: torch.save({"model": own}, path),
    "state_dict": lambda own, path: torch.save({"state_dict": own, "epoch": 3}, path),
    "model_state": lambda own, path: torch.save(
        {"model_state": own, "optimizer_state": {"state": {}, "param_groups": [{"lr": 1e-4}]}}, path
    ),
    "bare": lambda own, path: torch.save(own, path),
    "before torch 1.6": lambda own, path: torch.save(
        {"model": own}, path, _use_new_zipfile_serialization=False
    ),
    "trained in parallel": lambda own, path: torch.save(
        {"model": {f"module.{name}": each for name, each in own.items()}}, path
    ),
    "compiled": lambda own, path: torch.save(
        {f"_orig_mod.{name}": each for name, each in own.items()}, path
    ),
    "compiled in part and in parallel": lambda own, path: torch.save(
        {
            "module." + name.replace("trunk.", "trunk._orig_mod."): each
            for name, each in own.items()
        },
        path,
    ),
    "safetensors": lambda own, path: save_file(own, path),
    "transformers": lambda own, path: save_file(of_transformers(own), path),
    "transformers, tied": lambda own, path: save_file(with_tied_matrix(own), path),
    "transformers in torch": lambda own, path: torch.save(of_transformers(own), path),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_weights_are_the_same_in_each_form_whatever_the_file_is_called(
    form: str, name: str, own: Weights, tmp_path: Path
) -> None:
    FORMS[form](own, tmp_path / name)
    found = weights.read(tmp_path / name)
    if form.startswith("transformers"):  # tests/huggingface.py names those of images alone
        own = {each: own[each] for each in own if not recognition.is_of_memory(each)}
    assert found.keys() == own.keys()
    assert all(torch.equal(found[each], own[each]) for each in own)
    load.load_model(NARROW, tmp_path / name)


def test_weights_of_a_safetensors_file_are_mapped_and_not_copied(
    own: Weights, tmp_path: Path
) -> None:
    save_file({**own, "large": torch.ones(64 << 20)}, tmp_path / "large.safetensors")
    before = resident_memory()
    found = weights.read(tmp_path / "large.safetensors")
    assert found["large"].numel() == 64 << 20
    assert resident_memory() - before < 64 << 20  # bytes, of 256 MiB


def resident_memory() -> int:
    """Of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def refusal(path: Path) -> str:
    with pytest.raises(StageError) as error:
        weights.read(path)
    return str(error.value)


def cut_off(path: Path, own: Weights) -> None:
    save_file(own, path)
    path.write_bytes(path.read_bytes()[:-1000])


def overlapping(path: Path, own: Weights) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"a": entry, "b": {**entry, "data_offsets": [4, 12]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(12))


def header_of_2_gib(path: Path, own: Weights) -> None:
    path.write_bytes(struct.pack("<Q", 2 << 30) + b'{"a":')


@pytest.mark.parametrize("damage", [cut_off, overlapping, header_of_2_gib])
def test_a_damaged_safetensors_file_is_refused(
    damage: Callable[[Path, Weights], None], own: Weights, tmp_path: Path
) -> None:
    damage(tmp_path / "model.safetensors", own)
    message = refusal(tmp_path / "model.safetensors")
    assert "model.safetensors is a damaged safetensors file: " in message
    assert "fetch or copy it again" in message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer; `git lfs pull`"),
        (b"<!doctype html><html>", "a page of HTML"),
        (b'{"model_type": "sam2"}', "found JSON"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"ONNX", "a file that begins with b'ONNX'"),
        (b"", "a file that begins with b''"),
    ],
)
def test_a_file_that_is_something_else_is_named(content: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    message = refusal(tmp_path / "model.pt")
    assert "model.pt is no checkpoint: found " in message
    assert found in message
    assert "expected SAM 2's weights" in message


class RunsCode:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_nothing_in_a_file_is_run(name: str, own: Weights, tmp_path: Path) -> None:
    torch.save({"model": own, "trainer": RunsCode(tmp_path / "ran")}, tmp_path / name)
    message = refusal(tmp_path / name)
    assert "holds more than tensors" in message
    assert "Save it again with torch.save({'model': model.state_dict()}" in message
    (tmp_path / name).write_bytes(pickle.dumps(RunsCode(tmp_path / "ran"), protocol=2))
    assert "holds more than tensors" in refusal(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_torch_file_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "losses": [0.1]}, tmp_path / "log.pt")
    assert "has no state dict: found keys epoch, losses; expected" in refusal(tmp_path / "log.pt")


def test_a_lora_adapter_is_refused_with_what_to_do(own: Weights, tmp_path: Path) -> None:
    name = "base_model.model.vision_encoder.backbone.blocks.0.attn.qkv"
    adapter = {f"{name}.lora_{each}.weight": torch.ones(2, 2) for each in "AB"}
    save_file(adapter, tmp_path / "adapter_model.safetensors")
    message = refusal(tmp_path / "adapter_model.safetensors")
    assert "holds a LoRA adapter" in message
    assert "merge_and_unload()" in message


# --- which architecture weights are of -----------------------------------------------------------


@pytest.mark.parametrize("name", ["sam2_hiera_tiny", *list(PUBLISHED)[4:8]])
def test_a_published_architecture_is_recognized_by_its_weights(name: str) -> None:
    shapes = recognition.shapes_of(load.build_model(name).state_dict())
    assert recognition.name_of(shapes) == name
    # Of images, both generations are one.
    image = recognition.name_of(recognition.without_memory(shapes))
    assert image == name.replace("sam2_", "sam2.1_")


def test_weights_of_an_architecture_that_nobody_knows_are_refused(
    own: Weights, tmp_path: Path
) -> None:
    save_file(own, tmp_path / "mine.safetensors")
    with pytest.raises(StageError) as error:
        load.load_model("auto", tmp_path / "mine.safetensors")
    message = str(error.value)
    assert "unknown architecture: found a Hiera 32 wide with 8 blocks" in message
    assert "tiny (96 wide, 12 blocks)" in message
    assert "name that with `config`" in message
    save_file({"conv1.weight": torch.ones(1)}, tmp_path / "resnet.safetensors")
    with pytest.raises(StageError, match=r"found 1 tensors \(conv1.weight\)"):
        load.load_model("auto", tmp_path / "resnet.safetensors")


def test_weights_that_do_not_fit_say_which_architecture_they_do_fit(tmp_path: Path) -> None:
    load.make_synthetic("sam2_hiera_tiny", 1, str(tmp_path / "tiny.pt"))
    with pytest.raises(StageError, match=r"Its weights are those of sam2_hiera_tiny\.$"):
        load.load_model("sam2_hiera_small", tmp_path / "tiny.pt")


def test_a_model_of_images_needs_no_memory(tmp_path: Path) -> None:
    load.make_synthetic("sam2.1_hiera_tiny", 1, str(tmp_path / "tiny.pt"))
    whole = weights.read(tmp_path / "tiny.pt")
    kept = {name: each for name, each in whole.items() if not recognition.is_of_memory(name)}
    assert len(kept) < len(whole)
    save_file(kept, tmp_path / "image.safetensors")
    model = load.load_model("auto", tmp_path / "image.safetensors")
    assert all(torch.equal(model.state_dict()[name], each) for name, each in kept.items())
    del kept["no_mem_embed"]  # what the encoder adds
    save_file(kept, tmp_path / "less.safetensors")
    with pytest.raises(StageError, match=r"1 missing keys \(no_mem_embed\)"):
        load.load_model("auto", tmp_path / "less.safetensors")
