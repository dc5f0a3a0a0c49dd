"""Checkpoints in common forms: recognized by their contents, read under sam2's names."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface import renamed
from project import ROOT, Project
from safetensors.torch import save_file

from tasks.model import load, other_families, recognition, weights
from tasks.model.published import PUBLISHED
from tasks.system.errors import StageError

FRAMES = "maskmem_tpos_enc"  # an embedding for each frame that a model remembers
NARROW = str(ROOT / "tests/narrow.yaml")
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def own() -> Weights:
    """A small model's weights under sam2's names, no two alike."""
    found = load.build_model(NARROW).state_dict()
    noise = torch.Generator().manual_seed(7)
    return {name: torch.randn(each.shape, generator=noise) for name, each in found.items()}


def of_transformers(own: Weights) -> Weights:
    """The weights under the names of transformers' own conversion."""
    return {name: each.contiguous() for name, each in renamed(own).items()}


def with_tied_matrix(own: Weights) -> Weights:
    """The weights as ``save_pretrained`` writes them: a shared matrix under its other name."""
    found = of_transformers(own)
    matrix = found.pop("prompt_encoder.shared_embedding.positional_embedding")
    return {"shared_image_embedding.positional_embedding": matrix, **found}


def with_both_matrices(own: Weights) -> Weights:
    """The weights as in transformers' state dict: one matrix under two names."""
    found = of_transformers(own)
    matrix = found["prompt_encoder.shared_embedding.positional_embedding"]
    return {**found, "shared_image_embedding.positional_embedding": matrix.clone()}


def under(prefix: str, own: Weights) -> Weights:
    return {f"{prefix}{name}": each for name, each in own.items()}


def noisy(own: Weights) -> Weights:
    """Another model's weights."""
    return {name: each + 1 for name, each in own.items()}


def in_one_storage(own: Weights) -> Weights:
    """The same weights, as columns of one tensor."""
    whole = torch.stack([torch.cat([each.flatten() for each in own.values()])] * 2, dim=1)
    columns = whole[:, 0].split([each.numel() for each in own.values()])
    return {
        name: column.unflatten(0, each.shape) if each.numel() else each
        for (name, each), column in zip(own.items(), columns, strict=True)
    }


def save_with_numpy_1(content: Any, path: Path) -> None:
    """Save in torch's older format, whose bytes can name a module by its former name."""
    torch.save(content, path, _use_new_zipfile_serialization=False)
    new = path.read_bytes()
    assert b"cnumpy._core.multiarray\n" in new
    path.write_bytes(new.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


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
    "transformers, both": lambda own, path: save_file(with_both_matrices(own), path),
    "transformers in torch": lambda own, path: torch.save(of_transformers(own), path),
}


TRAINERS: dict[str, Callable[[Weights, Path], Any]] = {
    "DeepSpeed's": lambda own, path: torch.save({"module": own, "global_steps": 7}, path),
    "net": lambda own, path: torch.save({"net": own}, path),
    "a trainer's own key": lambda own, path: torch.save({"network_weights": own}, path),
    "a state dict in a model": lambda own, path: torch.save({"model": {"state_dict": own}}, path),
    "Lightning's, beside a criterion": lambda own, path: torch.save(
        {
            "state_dict": {**under("model.", own), "criterion.weight": torch.ones(3)},
            "pytorch-lightning_version": "2.5.0",
            "hyper_parameters": {"lr": 1e-4},
        },
        path,
    ),
    "in several wrappers": lambda own, path: torch.save(
        {"state_dict": under("module.model._orig_mod.", own)}, path
    ),
    "a decoder alone trained in parallel": lambda own, path: torch.save(
        {
            n.replace("sam_mask_decoder.", "sam_mask_decoder.module."): each
            for n, each in own.items()
        },
        path,
    ),
    "an average beside it": lambda own, path: torch.save(
        {"model_ema": noisy(own), "model": own}, path
    ),
    "an average under a prefix": lambda own, path: torch.save(
        {"state_dict": {**under("ema_model.", noisy(own)), **under("model.", own)}}, path
    ),
    "numbers among the tensors": lambda own, path: torch.save(
        {"epoch": 3, **own, "lr": 0.1, "name": "cells", "best": None}, path
    ),
    "bare, beside an optimizer": lambda own, path: torch.save(
        {
            **own,
            "optimizer": {
                "state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(7.0)}},
                "param_groups": [{"lr": 1e-4, "params": [0]}],
            },
        },
        path,
    ),
    "beside numpy's scalars": lambda own, path: torch.save(
        {
            "model": own,
            "loss": np.float64(0.5),
            "best": {"iou": np.float32(0.9), "epoch": np.int64(3), "done": np.bool_(True)},
        },
        path,
    ),
    "beside scalars of numpy 1": lambda own, path: save_with_numpy_1(
        {"model": own, "loss": np.float64(0.5)}, path
    ),
    "not contiguous, and shared": lambda own, path: torch.save(
        {"model": in_one_storage(own)}, path
    ),
    "parameters": lambda own, path: torch.save(
        {"model": {name: torch.nn.Parameter(each) for name, each in own.items()}}, path
    ),
    "safetensors, beside a criterion": lambda own, path: save_file(
        {**under("model.", own), "criterion.weight": torch.ones(3)}, path
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_weights_are_the_same_in_each_form_under_any_file_name(
    form: str, name: str, own: Weights, tmp_path: Path
) -> None:
    FORMS[form](own, tmp_path / name)
    found = weights.read(tmp_path / name)
    if form.startswith("transformers"):  # tests/huggingface.py renames only the weights for images
        own = {each: own[each] for each in own if not recognition.is_of_memory(each)}
    assert found.keys() == own.keys()
    assert all(torch.equal(found[each], own[each]) for each in own)
    load.load_model(NARROW, tmp_path / name)


@pytest.mark.parametrize("form", TRAINERS)
def test_weights_are_read_from_the_checkpoints_of_trainers(
    form: str, own: Weights, tmp_path: Path
) -> None:
    TRAINERS[form](own, tmp_path / "weights.pt")
    found = weights.read(tmp_path / "weights.pt")
    assert found.keys() == own.keys()
    assert all(torch.equal(found[each], own[each]) for each in own)


def test_weights_of_a_safetensors_file_are_mapped_and_not_copied(
    own: Weights, tmp_path: Path
) -> None:
    save_file({**own, "large": torch.ones(64 << 20)}, tmp_path / "large.safetensors")
    before = resident_memory()
    found = weights.read(tmp_path / "large.safetensors")
    assert found["large"].numel() == 64 << 20
    assert resident_memory() - before < 64 << 20  # the tensor has 256 MiB


def resident_memory() -> int:
    """The resident memory of this process, in bytes."""
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
        (b'{"model_type": "sam2"}', "it is JSON"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"ONNX", "a file that begins with b'ONNX'"),
        (b"", "a file that begins with b''"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_is_refused_with_its_kind(
    content: bytes, found: str, tmp_path: Path
) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    message = refusal(tmp_path / "model.pt")
    assert "model.pt is not a checkpoint: it is " in message
    assert found in message
    assert "expected SAM 2's weights" in message


class RunsCode:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_no_code_in_a_file_is_run(name: str, own: Weights, tmp_path: Path) -> None:
    torch.save({"model": own, "trainer": RunsCode(tmp_path / "ran")}, tmp_path / name)
    message = refusal(tmp_path / name)
    assert "holds more than tensors" in message
    assert "Save it again with torch.save({'model': model.state_dict()}" in message
    (tmp_path / name).write_bytes(pickle.dumps(RunsCode(tmp_path / "ran"), protocol=2))
    assert "holds more than tensors" in refusal(tmp_path / name)
    assert not (tmp_path / "ran").exists()


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (Calls(os.system, "echo ran > ran"), "it names posix.system"),
        (Calls(eval, "1 + 1"), "it names eval"),
        (Path("trained/on"), "it names pathlib.PosixPath"),
        (torch.nn.Linear(1, 1), "it names torch.nn.modules.linear.Linear"),
        (np.ones(3), "it names numpy._core.multiarray._reconstruct"),
    ],
    ids=["a command", "code", "a path", "a model", "an array"],
)
def test_objects_that_torch_refuses_are_named_without_torchs_advice_to_allow_them(
    extra: Any, words: str, own: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": own, "extra": extra}, "model.pt")
    message = refusal(Path("model.pt"))
    assert f"holds more than tensors, and loading that could run code: {words} (" in message
    assert not re.search("weights_only|safe_globals|\x1b", message)
    assert not Path("ran").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit|.*TorchScript")
def test_a_torchscript_archive_is_refused_by_name(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "scripted.pt")
    message = refusal(tmp_path / "scripted.pt")
    assert "it is a TorchScript archive, which is a program" in message
    assert "weights_only" not in message


def test_no_code_of_numpy_runs_for_its_scalars(tmp_path: Path) -> None:
    """numpy itself would refuse these arguments."""
    scalar = np.float64(1).__reduce__()[0]
    torch.save({"loss": Calls(scalar, "no type", "no bytes")}, tmp_path / "log.pt")
    assert "has no state dict: found keys loss" in refusal(tmp_path / "log.pt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3, "losses": [0.1]}, "found keys epoch, losses; expected"),
        ({"epoch": 3, "model": {}}, "found keys epoch, model (empty); expected"),
        ({}, "found an empty table; expected"),
        ([torch.ones(1)], "found a list; expected"),
        ({"\x1b[31mred" + "d" * 300: 1}, "found keys redd"),
    ],
)
def test_a_torch_file_without_weights_is_refused_with_its_contents(
    content: Any, words: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "log.pt")
    message = refusal(tmp_path / "log.pt")
    assert f"has no state dict: {words}" in message
    assert "\x1b" not in message
    assert len(message) < 600


def test_a_table_that_contains_itself_is_read(own: Weights, tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": own}
    content["again"] = content
    torch.save(content, tmp_path / "circle.pt")
    message = refusal(tmp_path / "circle.pt")
    assert "with weights under `model.` and `again.model.`" in message


# --- which of several models in a file ---


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (
            lambda own: {"model": {**under("student.", own), **under("teacher.", noisy(own))}},
            "`model.student.` and `model.teacher.`",
        ),
        (
            lambda own: {**under("student.", own), **under("teacher.", noisy(own))},
            "`student.` and `teacher.`",
        ),
        (
            lambda own: {"generator": own, "best": {"state_dict": noisy(own)}},
            "`generator.` and `best.state_dict.`",
        ),
        (lambda own: {**own, **under("teacher.", noisy(own))}, "no prefix and `teacher.`"),
        (lambda own: {"ema": own, "swa": noisy(own)}, "`ema.` and `swa.`"),
    ],
)
def test_two_models_in_a_file_are_refused_with_their_names(
    content: Callable[[Weights], Any], names: str, own: Weights, tmp_path: Path
) -> None:
    torch.save(content(own), tmp_path / "two.pt")
    message = refusal(tmp_path / "two.pt")
    assert f"two.pt holds 2 models, with weights under {names}; expected one model" in message
    assert "torch.save({'model': model.state_dict()}" in message


def test_the_choice_between_a_model_and_its_average_is_reported(
    own: Weights, tmp_path: Path
) -> None:
    torch.save({"model_ema": noisy(own), "model": own}, tmp_path / "both.pt")
    note = weights.choose(tmp_path / "both.pt").note
    assert note is not None
    assert note.startswith("took the weights under `model.`, and left out those under `model_ema.`")
    torch.save({"model_ema": own, "epoch": 3}, tmp_path / "average.pt")
    assert weights.choose(tmp_path / "average.pt").note is None


def test_a_part_of_another_model_beside_a_whole_one_is_left_out_and_reported(
    own: Weights, tmp_path: Path
) -> None:
    encoder = {name: each for name, each in own.items() if name.startswith("image_encoder.")}
    content = {**under("teacher.", noisy(encoder)), **under("student.", own)}
    torch.save(content, tmp_path / "distilled.pt")
    choice = weights.choose(tmp_path / "distilled.pt")
    assert (choice.prefix, choice.others) == ("student.", ("teacher.",))
    assert all(torch.equal(choice.weights[name], each) for name, each in own.items())


def test_two_positional_embeddings_that_differ_are_refused_with_their_names(
    own: Weights, tmp_path: Path
) -> None:
    both = with_both_matrices(own)
    both["shared_image_embedding.positional_embedding"][0, 0] += 1e-3
    save_file(both, tmp_path / "model.safetensors")
    message = refusal(tmp_path / "model.safetensors")
    assert (
        "has two positional embeddings that differ: "
        "prompt_encoder.shared_embedding.positional_embedding and "
        "shared_image_embedding.positional_embedding; expected equal ones" in message
    )


# --- weights that are not finite, or not plain numbers ---


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_by_name(
    value: float, own: Weights, tmp_path: Path
) -> None:
    name = "sam_mask_decoder.iou_token.weight"
    broken = {**own, name: own[name].clone()}
    broken[name][0, 3] = value
    torch.save({"model": broken}, tmp_path / "diverged.pt")
    with pytest.raises(StageError) as error:
        load.load_model(NARROW, tmp_path / "diverged.pt")
    assert f"weights that are NaN or infinite, in 1 of {len(own)} tensors: {name};" in str(
        error.value
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_cast(
    dtype: torch.dtype, own: Weights, tmp_path: Path
) -> None:
    torch.save({"model": {name: each.to(dtype) for name, each in own.items()}}, tmp_path / "m.pt")
    model = load.load_model(NARROW, tmp_path / "m.pt")
    assert all(
        torch.equal(each, own[name].to(dtype).float())
        for name, each in model.state_dict().items()
        if not recognition.is_of_memory(name)
    )


@pytest.mark.parametrize(
    "packed",
    [
        lambda each: each.to(torch.int8),
        lambda each: torch.quantize_per_tensor(each, 0.1, 0, torch.qint8),
        lambda each: each.to_sparse(),
    ],
    ids=["integers", "quantized", "sparse"],
)
def test_integer_quantized_and_sparse_weights_are_refused(
    packed: Callable[[torch.Tensor], torch.Tensor], own: Weights, tmp_path: Path
) -> None:
    name = "sam_mask_decoder.iou_token.weight"
    torch.save({"model": {**own, name: packed(own[name])}}, tmp_path / "packed.pt")
    with pytest.raises(StageError, match=f"weights that are not plain numbers: {name}; expected"):
        load.load_model(NARROW, tmp_path / "packed.pt")


def test_a_lora_adapter_is_refused_with_advice(own: Weights, tmp_path: Path) -> None:
    name = "base_model.model.vision_encoder.backbone.blocks.0.attn.qkv"
    adapter = {f"{name}.lora_{each}.weight": torch.ones(2, 2) for each in "AB"}
    save_file(adapter, tmp_path / "adapter_model.safetensors")
    message = refusal(tmp_path / "adapter_model.safetensors")
    assert "holds a LoRA adapter" in message
    assert "merge_and_unload()" in message


# --- the architecture of weights -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["sam2_hiera_tiny", *list(PUBLISHED)[4:8]])
def test_a_published_architecture_is_recognized_by_its_weights(name: str) -> None:
    shapes = recognition.shapes_of(load.build_model(name).state_dict())
    assert recognition.name_of(shapes) == name
    # Without a memory, both generations are the same.
    image = recognition.name_of(recognition.without_memory(shapes))
    assert image == name.replace("sam2_", "sam2.1_")


def test_weights_of_an_unknown_architecture_are_refused(own: Weights, tmp_path: Path) -> None:
    save_file(own, tmp_path / "mine.safetensors")
    with pytest.raises(StageError) as error:
        load.load_model("auto", tmp_path / "mine.safetensors")
    message = str(error.value)
    assert "unknown architecture: found a Hiera 32 wide with 8 blocks" in message
    assert "tiny (96 wide, 12 blocks)" in message
    assert "set `config` to that file" in message
    save_file({"conv1.weight": torch.ones(1)}, tmp_path / "resnet.safetensors")
    with pytest.raises(StageError, match=r"found 1 tensors \(conv1.weight\)"):
        load.load_model("auto", tmp_path / "resnet.safetensors")


def of_hq_sam() -> dict[str, Any]:
    from transformers import SamHQConfig, SamHQModel

    config = SamHQConfig(vision_config=ONE_LAYER, mask_decoder_config={"num_hidden_layers": 1})
    return dict(SamHQModel(config).state_dict())


def of_sam_3() -> dict[str, Any]:
    from transformers import Sam3TrackerConfig, Sam3TrackerModel

    with torch.device("meta"):
        names = Sam3TrackerModel(Sam3TrackerConfig()).state_dict()
    return {name: torch.ones(1) for name in names}


ONE_LAYER = {"num_hidden_layers": 1, "global_attn_indexes": [0], "hidden_size": 32, "mlp_dim": 8}
ONE_LAYER |= {"num_attention_heads": 2}
OTHERS: list[tuple[str, Callable[[], dict[str, Any]]]] = [
    ("HQ-SAM", of_hq_sam),
    ("SAM 3", of_sam_3),
    ("SAM 3", lambda: {"detector.backbone.vision_backbone.trunk.pos_embed": torch.ones(1)}),
    ("FastSAM", lambda: {"model.22.proto.cv1.conv.weight": torch.ones(1)}),
]


@pytest.mark.parametrize(("family", "make"), OTHERS)
def test_weights_of_another_family_are_refused_with_its_name(
    family: str, make: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    torch.save({"model_state": make(), "decoder_state": {}}, tmp_path / "other.pt")
    with pytest.raises(StageError) as error:
        load.load_model("auto", tmp_path / "other.pt")
    message = str(error.value)
    assert f"holds weights of {family}, which this build does not support" in message
    supported = "SAM 2, SAM 2.1, EdgeTAM, EfficientTAM, SAM 1 and MobileSAM"
    assert f"expected weights of {supported}" in message
    assert "YAML" not in message


@pytest.mark.parametrize("name", ["sam2_hiera_tiny", "sam2.1_hiera_tiny", "edgetam", NARROW])
def test_no_supported_architecture_is_mistaken_for_another_family(name: str) -> None:
    assert other_families.family_of(load.build_model(name).state_dict()) is None


def test_a_pickled_model_of_ultralytics_is_refused_as_fastsam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = type("SegmentationModel", (), {"__module__": "ultralytics.nn.tasks"})
    for name in ("ultralytics", "ultralytics.nn", model.__module__):
        module = types.ModuleType(name)
        module.__dict__[model.__name__] = model
        monkeypatch.setitem(sys.modules, name, module)
    torch.save({"model": model()}, tmp_path / "FastSAM-s.pt")
    message = refusal(tmp_path / "FastSAM-s.pt")
    assert "a YOLO model, as FastSAM's are" in message


def test_the_error_for_weights_that_do_not_fit_names_the_architecture_they_do_fit(
    tmp_path: Path,
) -> None:
    load.make_synthetic("sam2_hiera_tiny", 1, str(tmp_path / "tiny.pt"))
    with pytest.raises(StageError, match=r"Its weights fit sam2_hiera_tiny\.$"):
        load.load_model("sam2_hiera_small", tmp_path / "tiny.pt")


def test_an_image_model_needs_no_memory_weights(tmp_path: Path) -> None:
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


# --- what only tracking uses ---


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Weights of SAM 2.1 tiny, which remembers seven frames."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.pt"
    load.make_synthetic("sam2.1_hiera_tiny", 1, str(path))
    return weights.read(path)


def test_an_image_model_may_have_been_trained_to_remember_fewer_frames(
    tiny: Weights, tmp_path: Path
) -> None:
    torch.save({"model": {**tiny, FRAMES: tiny[FRAMES][:4].clone()}}, tmp_path / "four.pt")
    model = load.load_model("auto", tmp_path / "four.pt")
    state = model.state_dict()
    assert all(torch.equal(state[name], each) for name, each in tiny.items() if name != FRAMES)


def test_a_tracking_model_must_remember_as_many_frames_as_the_architecture(
    tiny: Weights, tmp_path: Path
) -> None:
    torch.save({"model": {**tiny, FRAMES: tiny[FRAMES][:4].clone()}}, tmp_path / "four.pt")
    with pytest.raises(StageError) as error:
        load.load_model("auto", tmp_path / "four.pt", video=True)
    message = str(error.value)
    assert f"{FRAMES} is [4, 1, 1, 64] instead of [7, 1, 1, 64]" in message
    assert "with `num_maskmem: 4` and set `config` to it" in message


def test_weights_of_the_other_generation_are_refused_for_images_too(
    tiny: Weights, tmp_path: Path
) -> None:
    torch.save({"model": tiny}, tmp_path / "tiny.pt")
    with pytest.raises(StageError, match=r"Its weights fit sam2.1_hiera_tiny\.$"):
        load.load_model("sam2_hiera_tiny", tmp_path / "tiny.pt")


# --- through the real command ---


@pytest.mark.slow
def test_the_build_reports_which_weights_it_took_and_which_it_refused(
    own: Weights, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project", cheap=False)
    (project.root / "narrow.yaml").write_text(Path(NARROW).read_text())
    torch.save({"model": own, "model_ema": noisy(own)}, project.root / "both.pt")
    command = Calls(os.system, "echo ran > ran")
    torch.save({"model": own, "trainer": command}, project.root / "trainer.pt")
    project.configure(
        "".join(
            f'[models.{name}]\nconfig = "narrow.yaml"\nurl = "{name}.pt"\n'
            for name in ("both", "trainer")
        )
    )
    outcome = project.doit("--continue", "export")
    assert outcome.status != 0
    assert (
        "export:both: took the weights under `model.`, and left out those under `model_ema.`"
        in outcome.output
    )
    assert "trainer.pt holds more than tensors" in outcome.output
    assert "it names posix.system" in outcome.output
    assert not re.search("weights_only|Traceback", outcome.output)
    assert (project.root / "build/models/both/exported/decoder.onnx").exists()
    assert not list(project.root.rglob("ran"))
