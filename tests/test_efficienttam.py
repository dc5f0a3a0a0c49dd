"""EfficientTAM: its model, compared with PyPI's efficient-track-anything, and its patches.

The package runs in separate processes (`efficient_track_anything`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import efficient_track_anything as package
import numpy as np
import onnx
import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base
from samexporter.export_sam2 import SAM2ImageEncoder
from torch import Tensor

from tasks import export
from tasks.clients.contract import tracking_constants
from tasks.config.models import TRACKING_GRAPHS, Decoder
from tasks.inference.graph_file import tensors_of
from tasks.inference.metrics import mask_iou
from tasks.inference.reference import Reference
from tasks.inference.scripts import run_script
from tasks.inference.sessions import run_by_name
from tasks.inference.tracker import Tracker
from tasks.inference.video_reference import run_with_pytorch, through_jpeg
from tasks.model import encoder_patches, load, recognition, weights
from tasks.model.published import EFFICIENTTAM, native_image_size
from tasks.model.reference_package import (
    EFFICIENT_TRACK_ANYTHING,
    folder_of,
    import_first,
    install_command,
    require,
)
from tasks.model.trained import TrainedModel
from tasks.running import child
from tasks.system.errors import StageError

SIZE = 320  # 20 places on a side, which is not a whole number of windows

Ask = Callable[..., dict[str, Any]]
GraphFiles = dict[str, str]


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Calls a function of `efficient_track_anything` in a process that imports the package."""
    folder = tmp_path_factory.mktemp("references")
    package.install(folder)
    environment = {"PYTHONPATH": str(Path(__file__).parent)}

    def call(name: str, **arguments: Any) -> dict[str, Any]:
        arguments = {"folder": str(folder), **arguments}
        function = f"efficient_track_anything:{name}"
        return child.run(function, arguments, folder / "log", False, environment=environment)

    return call


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Synthetic weights of each trunk, which all of its variants share."""
    folder = tmp_path_factory.mktemp("efficienttam")
    paths = {name: folder / f"{name}.pt" for name in ("efficienttam_s", "efficienttam_ti")}
    for seed, (name, path) in enumerate(paths.items()):
        load.make_synthetic(name, seed, str(path))
    return paths


def checkpoint_of(architecture: str, checkpoints: dict[str, Path]) -> Path:
    return next(path for name, path in checkpoints.items() if architecture.startswith(name))


@pytest.fixture(scope="module")
def model(checkpoints: dict[str, Path]) -> SAM2Base:
    return load.load_model("efficienttam_ti", checkpoints["efficienttam_ti"], SIZE)


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest magnitude."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


# --- against the package ---


def test_every_architecture_has_the_weight_shapes_of_the_package(ask: Ask) -> None:
    described = ask("describe", architectures=list(EFFICIENTTAM))
    assert "references" in described["file"]
    for name in EFFICIENTTAM:
        own = recognition.shapes_of(load.build_model(name).state_dict())
        assert {each: list(shape) for each, shape in own.items()} == described["shapes"][name]


@pytest.mark.parametrize(
    "architecture",
    ["efficienttam_ti", pytest.param("efficienttam_s", marks=pytest.mark.slow)],
)
def test_masks_of_an_image_match_the_package(
    architecture: str, ask: Ask, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = checkpoint_of(architecture, checkpoints)
    destination = tmp_path / "answers.npz"
    described = ask(
        "segment",
        architecture=architecture,
        checkpoint=str(checkpoint),
        size=SIZE,
        destination=str(destination),
    )
    assert not any(name.startswith("tasks.") for name in described["classes"])
    found = package.answers(load.load_model(architecture, checkpoint, SIZE))
    with np.load(destination) as expected:
        assert set(found) == set(expected.files)
        for name, values in found.items():
            wanted = torch.from_numpy(expected[name])
            assert difference(torch.from_numpy(values), wanted) < 1e-6, name
            assert wanted.std() > 0.01 or name.endswith("scores")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["", "_1", "_2"])
def test_tracking_matches_the_package(
    variant: str, ask: Ask, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    architecture, checkpoint = f"efficienttam_ti{variant}", checkpoints["efficienttam_ti"]
    destination = tmp_path / "answers.npz"
    ask(
        "follow",
        architecture=architecture,
        checkpoint=str(checkpoint),
        size=256,
        destination=str(destination),
    )
    predictor = load.load_video_model(architecture, checkpoint, 256)
    with np.load(destination) as expected:
        remaining = set(expected.files)
        for name, make in package.SCRIPTS.items():
            for key, answer in run_with_pytorch(predictor, make()):
                path = "/".join(map(str, (name, *key)))
                assert mask_iou(answer.mask, expected[f"{path}/mask"]) > 0.999, path
                assert np.abs(answer.pointer - expected[f"{path}/pointer"]).max() < 1e-5, path
                remaining -= {f"{path}/mask", f"{path}/pointer"}
    assert not remaining


# --- the export ---


def test_the_patched_encoder_matches_the_original(model: SAM2Base) -> None:
    encoder = SAM2ImageEncoder(model).eval()
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    (features,) = model.image_encoder(image)["backbone_fpn"]
    expected = features + model.no_mem_embed.reshape(1, -1, 1, 1)
    for kind in ("plain", "fused"):
        with encoder_patches.patched_encoder(encoder, kind):
            (found,) = encoder(image)
        assert difference(found, expected) < 1e-5
    assert torch.equal(model.image_encoder(image)["backbone_fpn"][0], features)


def test_a_non_square_image_gets_the_matching_position_embedding(model: SAM2Base) -> None:
    trunk = model.image_encoder.trunk
    image = torch.randn(1, 3, 160, 96, generator=torch.Generator().manual_seed(1))
    ((found,), (expected,)) = (encoder_patches.vit_forward(trunk)(image), trunk(image))
    assert found.shape == (1, 192, 10, 6)
    assert difference(found, expected) < 1e-5


@pytest.fixture(scope="module")
def graphs(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> GraphFiles:
    """All graphs of a model that tracks, as the build simplifies them."""
    folder = tmp_path_factory.mktemp("graphs")
    names = ("encoder", "decoder", *TRACKING_GRAPHS)
    traced = {name: folder / f"{name}.traced" for name in names}
    decoders = {"decoder": Decoder("points", "multi", "many")}
    arguments = ("efficienttam_ti_2", checkpoints["efficienttam_ti"], 20, "plain")
    export.write_graphs(export.ExportRequest(*arguments, decoders, traced, SIZE, video=True))
    simplified = {name: str(folder / f"{name}.onnx") for name in names}
    pairs = [[str(traced[name]), simplified[name]] for name in names]
    child.run("tasks.simplify:simplify_graphs", {"pairs": pairs}, folder / "log", False)
    return simplified


def test_only_the_embedding_goes_from_the_encoder_to_the_decoders(graphs: GraphFiles) -> None:
    (embedding,) = tensors_of(graphs["encoder"]).outputs
    assert (embedding.name, embedding.shape) == ("image_embed", (1, 256, SIZE // 16, SIZE // 16))
    points = ["point_coords", "point_labels", "mask_input", "has_mask_input"]
    assert tensors_of(graphs["decoder"]).names()[0] == ["image_embed", *points]
    assert tensors_of(graphs["tracking_decoder"]).names()[0] == [
        *("image_embed", *points, "multimask")
    ]


@pytest.mark.slow
def test_the_graphs_track_as_sam2s_predictor_does(
    graphs: GraphFiles, checkpoints: dict[str, Path]
) -> None:
    predictor = load.load_video_model("efficienttam_ti_2", checkpoints["efficienttam_ti"], SIZE)
    script = package.SCRIPTS["stack"]()
    expected = dict(run_with_pytorch(predictor, script))
    seen = through_jpeg(script)
    tracker = Tracker(run_by_name(graphs), tracking_constants(predictor), list(seen.frames))
    answers = dict(run_script(tracker, seen))
    assert list(answers) == list(expected)
    for key, answer in answers.items():
        assert mask_iou(answer.mask, expected[key].mask) > 0.999, key
        assert np.abs(answer.pointer - expected[key].pointer).max() < 1e-4, key


def test_the_encoder_graph_matches_pytorchs_features(model: SAM2Base, graphs: GraphFiles) -> None:
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    found = run_by_name(graphs)("encoder", {"image": image.numpy()})
    expected = model.image_encoder(image)["backbone_fpn"][0]
    expected = expected + model.no_mem_embed.reshape(1, -1, 1, 1)
    assert difference(torch.from_numpy(found["image_embed"]), expected) < 1e-5


def test_no_graph_has_shape_operators(graphs: GraphFiles) -> None:
    computing = {"Shape", "Range", "Mod", "ConstantOfShape", "If", "Loop", "Tile", "Size"}
    for name, path in graphs.items():
        assert not computing & {node.op_type for node in onnx.load(path).graph.node}, name


def test_the_encoder_graph_has_one_operator_per_norm_and_per_matrix_product(
    graphs: GraphFiles,
) -> None:
    graph = onnx.load(graphs["encoder"]).graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"Resize", "ReduceMean", "Sqrt", "Erf"}
    assert {"Gemm", "LayerNormalization", "Gelu"} <= operators
    assert len(graph.node) < 400


def test_the_encoder_file_holds_its_weights_and_little_else(
    model: SAM2Base, graphs: GraphFiles
) -> None:
    numbers = sum(each.numel() for each in model.image_encoder.parameters())
    assert Path(graphs["encoder"]).stat().st_size <= 1.05 * 4 * numbers


# --- recognition and image sizes ---


@pytest.mark.parametrize("trunk", ["s", "ti"])
def test_weights_are_recognized_but_not_their_variant(
    trunk: str, checkpoints: dict[str, Path]
) -> None:
    name = f"efficienttam_{trunk}"
    assert recognition.name_of(recognition.shapes_of(weights.read(checkpoints[name]))) == name
    others = f"Weights of {name}_1, {name}_2, {name}_512x512 look the same"
    with pytest.raises(StageError, match=f'`model_type = "{name}"` in the table. {others}'):
        load.load_model("auto", checkpoints[name])


def test_weights_of_the_other_trunk_are_refused_with_its_name(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(StageError, match=r"Its weights fit efficienttam_ti\.$"):
        load.load_model("efficienttam_s_1", checkpoints["efficienttam_ti"])


def test_the_architecture_name_determines_the_image_size_unless_one_is_set() -> None:
    sizes = [load.build_model(name).image_size for name in EFFICIENTTAM]
    assert sizes == [1024, 1024, 1024, 512] * 2
    assert sizes == [native_image_size(name) for name in EFFICIENTTAM]
    assert load.build_model("efficienttam_ti", 512).image_size == 512
    assert load.build_model("efficienttam_ti_512x512", 1024).image_size == 1024


def test_an_image_size_whose_memory_cannot_be_pooled_is_refused_only_for_video() -> None:
    words = (
        "image_size: found 240; allowed with `video = true` for efficienttam_ti_2: a multiple of 32"
    )
    with pytest.raises(StageError, match=words):
        load.build_model("efficienttam_ti_2", 240, video=True)
    assert load.build_model("efficienttam_ti_2", 240).image_size == 240
    assert load.build_model("efficienttam_ti", 240, video=True).image_size == 240


# --- the package in its folder ---


def test_a_missing_package_is_an_error_with_the_install_command(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, EFFICIENT_TRACK_ANYTHING)
    assert folder == tmp_path / "references/efficient-track-anything-1.0"
    with pytest.raises(StageError) as error:
        require(folder, EFFICIENT_TRACK_ANYTHING)
    command = f"uv pip install --no-deps --target {folder} efficient-track-anything==1.0"
    assert install_command(folder, EFFICIENT_TRACK_ANYTHING) == command
    assert f"\n  {command}\n" in str(error.value)


def test_the_package_is_not_imported_after_sam2(tmp_path: Path) -> None:
    (tmp_path / "efficient_track_anything-1.0.dist-info").mkdir()
    assert "sam2" in sys.modules
    with pytest.raises(AssertionError, match="sam2 is imported already"):
        import_first(str(tmp_path), EFFICIENT_TRACK_ANYTHING)
    assert str(tmp_path) not in sys.path


def test_a_model_is_compared_with_the_package_of_its_family(tmp_path: Path) -> None:
    model = TrainedModel("efficienttam_ti", "weights.pt", package=str(tmp_path / "references"))
    with pytest.raises(StageError, match=r"needs efficient-track-anything==1\.0 in "):
        Reference(model)


@pytest.mark.parametrize("module", ["tasks.verify", "tasks.reference", "tasks.inference.reference"])
def test_measuring_stages_do_not_import_sam2_at_module_level(module: str) -> None:
    program = f"import sys, {module}; assert 'sam2' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
