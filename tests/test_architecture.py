"""Custom architectures: a YAML of sam2's classes builds like any model; all else is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import sam2
import torch
from omegaconf import ListConfig
from project import ROOT, Project

from tasks.clients.registry import CLIENTS
from tasks.drawing.scenes import scene
from tasks.inference import truth
from tasks.model import architecture, load
from tasks.model.published import PUBLISHED
from tasks.system.errors import StageError

NARROW = ROOT / "tests/narrow.yaml"
PARTS = ("encoder", "decoder")
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def built(executable: str | None, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A model for 512 pixels: built, verified, proven on WASM in the browser and deployed."""
    project = Project(tmp_path_factory.mktemp("custom") / "project", cheap=False)
    (project.root / "web").symlink_to(ROOT / "web")
    (project.root / "narrow.yaml").write_text(NARROW.read_text())
    project.configure(
        "[browser]\nenabled = true\nwebgpu = false\n"
        '[models.narrow]\nconfig = "narrow.yaml"\nurl = "synthetic:?seed=2"\n'
    )
    outcome = project.build()
    assert outcome.status == 0, outcome.output
    return project


def manifest(project: Project) -> dict[str, Any]:
    path = project.root / "public/onnx-models/sam/narrow/manifest.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@slow
def test_all_shapes_follow_from_the_yaml_files_image_size_and_widths(built: Project) -> None:
    content = manifest(built)
    assert (content["model_type"], content["config"]) == (None, "narrow.yaml")
    shapes = {
        tensor["name"]: tensor["shape"]
        for part in PARTS
        for kind in ("inputs", "outputs")
        for tensor in content[part][kind]
    }
    assert shapes == {
        "image": [1, 3, 512, 512],
        "high_res_feats_0": [1, 12, 128, 128],
        "high_res_feats_1": [1, 24, 64, 64],
        "image_embed": [1, 96, 32, 32],
        "point_coords": ["num_prompts", "num_points", 2],
        "point_labels": ["num_prompts", "num_points"],
        "mask_input": ["mask_batch", 1, 128, 128],
        "has_mask_input": [1],
        "masks": ["num_prompts", 3, 128, 128],
        "iou_predictions": ["num_prompts", 3],
    }


@slow
def test_a_custom_model_passes_verification_and_the_browser_proof(built: Project) -> None:
    content = manifest(built)
    assert max(content["verification"]["encoder"].values()) < 1e-4
    assert content["browser"]["providers"]["wasm"]["mask_iou"] >= 0.999


@slow
def test_the_manifest_marks_the_weights_as_synthetic(built: Project) -> None:
    assert manifest(built)["checkpoint"]["synthetic"] is True


@slow
def test_the_encoder_of_a_custom_model_is_constant_folded(built: Project) -> None:
    path = built.root / "public/onnx-models/sam/narrow/encoder.onnx"
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {"Shape", "Range", "Mod", "If", "Loop", "Tile", "Resize"}


@slow
def test_masks_of_a_custom_model_can_be_compared_with_true_masks(built: Project) -> None:
    graphs = [str(built.root / f"build/models/narrow/{part}.onnx") for part in PARTS]
    found = truth.measure(truth.Segmenter(*graphs, CLIENTS["samexporter"]), scene, range(2), 2)
    assert (found["images"], found["objects"]) == (2, 4)
    assert set(found["iou"]) == {"1 click", "2 clicks", "3 clicks", "box"}
    assert all(0 <= iou < 0.5 for iou in found["iou"].values())  # its weights are random


@slow
def test_a_changed_yaml_reruns_the_stages_from_the_synthetic_checkpoint_on(built: Project) -> None:
    assert built.build().ran == set()
    file = built.root / "narrow.yaml"
    file.write_text(file.read_text().replace("stages: [1, 2, 3, 2]", "stages: [1, 1, 2, 1]"))
    # Five blocks now, so the block with global attention has another number.
    file.write_text(file.read_text().replace("global_att_blocks: [7]", "global_att_blocks: [4]"))
    outcome = built.build("simplify:narrow")
    assert outcome.status == 0, outcome.output
    assert outcome.ran == {"checkpoint:narrow", "export:narrow", "simplify:narrow"}


@slow
def test_every_option_passes_verification(tmp_path: Path) -> None:
    """Models with the best mask and the oldest opset, a single mask, and fused attention."""
    project = Project(tmp_path / "project", cheap=False)
    shutil.copy(NARROW, project.root)
    options = (
        'masks = "best"\nopset = 17',
        'masks = "single"\nprompts = "one"',
        'attention = "fused"\nbrowser = false',
    )
    project.configure(
        "".join(
            f'[models.x{number}]\nconfig = "narrow.yaml"\nurl = "synthetic:"\n{option}\n'
            for number, option in enumerate(options)
        )
    )
    outcome = project.build("-n", "2", "verify")
    assert outcome.status == 0, outcome.output
    best, single, fused = (
        onnx.load(project.root / f"build/models/x{number}/{name}.onnx", load_external_data=False)
        for number, name in enumerate(("decoder", "decoder", "encoder"))
    )
    assert [dim.dim_value for dim in best.graph.output[0].type.tensor_type.shape.dim][1:] == [
        1,
        128,
        128,
    ]
    assert "Where" in {node.op_type for node in single.graph.node}
    assert "MultiHeadAttention" in {node.op_type for node in fused.graph.node}


def changed(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """A copy of the narrow model's YAML with some lines changed."""
    text = NARROW.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after, 1)
    file = tmp_path / "changed.yaml"
    file.write_text(text)
    return file


def refusal(tmp_path: Path, *changes: tuple[str, str]) -> str:
    """The error message for the narrow model's YAML with some lines changed."""
    file = changed(tmp_path, *changes)
    with pytest.raises(StageError) as error:
        architecture.build(file)
    return str(error.value).removeprefix(f"{file} ")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "sam2x.Hiera",
        "sam2.build_sam.build_sam2",  # a function
        "sam2.build_sam.torch.load",  # not sam2's, though reached through it
        "sam2.modeling.sam2_base.torch.nn.Linear",
        "sam2.modeling.sam2_base.MaskDecoder",  # not its own name
        "sam2.modeling.sam2_base.NoSuchClass",
    ],
)
def test_a_target_that_is_not_a_sam2_class_is_refused_and_never_called(
    tmp_path: Path, target: str
) -> None:
    message = refusal(tmp_path, ("sam2.modeling.backbones.hieradet.Hiera", target))
    assert message.startswith(f"model.image_encoder.trunk._target_: found '{target}'; allowed: a c")


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        (
            "embed_dim: 32",
            "embed_dimm: 32",
            "does not describe a model: model.image_encoder.trunk: Hiera does not accept the "
            "file's values: TypeError: Hiera.__init__() got an unexpected keyword argument "
            "'embed_dimm'",
        ),
        (
            "use_high_res_features_in_sam: true",
            "use_high_res_features_in_sam: false",
            "model.use_high_res_features_in_sam: found False; allowed: true",
        ),
        (
            "image_size: 512",
            "image_size: 500",
            "model.image_size: found 500; allowed: a multiple of 32",
        ),
        ("scalp: 1", "scalp: 0", "model.image_encoder.scalp: found 0; allowed: a value that"),
        (
            "directly_add_no_mem_embed: true",
            "directly_add_no_mem_embed: false",
            "model.directly_add_no_mem_embed: found False; allowed: true",
        ),
        ("model:", "modell:", "model: found NoneType; allowed: a table with a _target_"),
        ("embed_dim: 32", "embed_dim: [32", "is not a readable YAML file"),
        ("embed_dim: 32", "embed_dim: ${nothing}", "is not a readable YAML file"),
    ],
)
def test_an_unbuildable_or_unexportable_architecture_is_refused_with_its_key(
    tmp_path: Path, before: str, after: str, complaint: str
) -> None:
    assert complaint in refusal(tmp_path, (before, after))


# A call that hydra and omegaconf would make: it copies a real file.
COPY = "{{_target_: shutil.copy, src: {source}, dst: {copy}}}"


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        (
            "embed_dim: 32",
            r"embed_dim: '\${{oc.create:{{_target_:shutil.copy,_args_:[{source},{copy}]}}}}'",
            "image_encoder.trunk.embed_dim",
        ),
        (
            "embed_dim: 32",
            "embed_dim: '${{oc.create:{{_target_:shutil.copy,_args_:[{source},{copy}]}}}}'",
            "image_encoder.trunk.embed_dim",
        ),
        ("embed_dim: 32", f"embed_dim: {COPY}", "image_encoder.trunk.embed_dim._target_"),
        ("[2, 3]", f"[2, {COPY}]", "image_encoder.neck.fpn_top_down_levels[1]._target_"),
        ("[2, 3]", f"[[2, [{COPY}]]]", "image_encoder.neck.fpn_top_down_levels[0][1][0]._target_"),
    ],
    ids=["escaped", "interpolated", "table", "in a list", "in lists of lists"],
)
def test_loading_the_yaml_file_never_calls_a_function_that_it_names(
    tmp_path: Path, before: str, after: str, key: str
) -> None:
    source, copy = tmp_path / "source.txt", tmp_path / "copy.txt"
    source.write_text("must stay where it is")
    message = refusal(tmp_path, (before, after.format(source=source, copy=copy)))
    assert message.startswith(f"model.{key}: found ")
    assert "shutil.copy" in message
    assert not copy.exists()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("embed_dim: 32", "embed_dim: ${oc.env:HOME}"), "image_encoder.trunk.embed_dim"),
        (("embed_dim: 32", "embed_dim: ${model.${oc.env:HOME}}"), "image_encoder.trunk.embed_dim"),
        (("image_size: 512", '"${oc.env:HOME}": 512'), "${oc.env:HOME}"),
        (("image_size: 512", '"x${oc.env:HOME}": 512'), "x${oc.env:HOME}"),
        (("[2, 3]", '["${oc.env:HOME}"]'), "image_encoder.neck.fpn_top_down_levels[0]"),
    ],
)
def test_an_interpolation_that_reaches_outside_the_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], key: str
) -> None:
    monkeypatch.setenv("HOME", "/home/not-to-be-read")
    message = refusal(tmp_path, change)
    assert message.startswith(f"model.{key}: found ")
    assert "${oc.env:HOME}" in message
    assert "allowed: plain values, and references within the file" in message
    assert "not-to-be-read" not in message


def test_an_interpolation_assembled_from_parts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/not-to-be-read")
    message = refusal(
        tmp_path,
        ("\nmodel:", "\nbegin: $\nend: '{oc.env:HOME}'\nmodel:"),
        ("embed_dim: 32", "embed_dim: ${begin}${end}"),
    )
    assert message.startswith("model.image_encoder.trunk.embed_dim: found '${oc.env:HOME}'")


def test_a_weights_path_for_the_trunk_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    torch.save({}, weights)
    change = ("embed_dim: 32", f"embed_dim: 32\n      weights_path: {weights}")
    message = refusal(tmp_path, change)
    assert message.startswith(
        f"model.image_encoder.trunk.weights_path: found '{weights}'; allowed: nothing"
    )


@pytest.mark.parametrize("reference", ["${model.image_size}", "${model.${which}}"])
def test_a_reference_within_the_file_is_resolved(tmp_path: Path, reference: str) -> None:
    file = changed(
        tmp_path,
        ("\nmodel:", "\nwhich: image_size\nmodel:"),
        ("num_maskmem: 0", f"num_maskmem: 0\n  memory_temporal_stride_for_eval: {reference}"),
    )
    assert architecture.build(file).memory_temporal_stride_for_eval == 512


def test_a_target_given_by_reference_is_checked_by_its_resolved_value(tmp_path: Path) -> None:
    target = ("_target_: sam2.modeling.backbones.hieradet.Hiera", "_target_: ${trunk}")
    harmless = ("\nmodel:", "\ntrunk: sam2.modeling.backbones.hieradet.Hiera\nmodel:")
    model = architecture.build(changed(tmp_path, target, harmless))
    assert type(model.image_encoder.trunk).__name__ == "Hiera"
    message = refusal(tmp_path, target, ("\nmodel:", "\ntrunk: os.system\nmodel:"))
    assert message.startswith("model.image_encoder.trunk._target_: found 'os.system'; allowed: a c")


@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=() if each.endswith("tiny") else slow) for each in PUBLISHED],
)
def test_sam2s_own_yaml_files_build_the_same_models_as_sam2s_builder(name: str) -> None:
    expected = load.build_model(name)
    found = architecture.build(Path(sam2.__file__).parent / PUBLISHED[name])
    assert repr(found) == repr(expected)
    assert settings(found) == settings(expected)
    shapes = [{n: v.shape for n, v in each.state_dict().items()} for each in (found, expected)]
    assert shapes[0] == shapes[1]


def settings(model: torch.nn.Module) -> dict[str, dict[str, Any]]:
    """The plain values that every part of a model was constructed with."""
    plain = (bool, int, float, str, list, tuple, type(None))
    return {
        name: {
            # hydra passes omegaconf's lists.
            key: list(value) if isinstance(value, ListConfig) else value
            for key, value in vars(part).items()
            if isinstance(value, (*plain, ListConfig))
        }
        for name, part in model.named_modules()
    }


def test_a_missing_yaml_file_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"there is no file .*none.yaml"):
        architecture.build(tmp_path / "none.yaml")


def test_a_checkpoint_mismatch_error_names_both_files_and_the_tensors(
    tmp_path: Path,
) -> None:
    wider = tmp_path / "wider.yaml"
    wider.write_text(NARROW.read_text().replace("stages: [1, 2, 3, 2]", "stages: [1, 2, 4, 2]"))
    weights = load.build_model(str(NARROW)).state_dict()
    torch.save({"model": weights}, tmp_path / "narrow.pt")
    with pytest.raises(StageError) as error:
        load.load_model(str(wider), tmp_path / "narrow.pt")
    assert f"narrow.pt does not fit {wider}: " in str(error.value)
    assert "missing keys (image_encoder.trunk.blocks." in str(error.value)


def test_half_precision_weights_are_cast_to_single_precision(tmp_path: Path) -> None:
    weights = load.build_model(str(NARROW)).state_dict()
    torch.save({"model": {n: v.half() for n, v in weights.items()}}, tmp_path / "half.pt")
    model = load.load_model(str(NARROW), tmp_path / "half.pt")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_single_mask_uses_the_stability_settings_of_sam2s_builder() -> None:
    decoder = architecture.build(NARROW).sam_mask_decoder
    assert decoder.dynamic_multimask_via_stability is True
    assert decoder.dynamic_multimask_stability_thresh == 0.98
