"""EdgeTAM's memory, compared with transformers' own implementation.

transformers' `EdgeTamVideoModel` saves random weights. sam2's predictor with this project's modules
and the graphs read them from that file; all three then track an object.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    EdgeTamVideoConfig,
    EdgeTamVideoInferenceSession,
    EdgeTamVideoModel,
    EdgeTamVisionConfig,
    TimmWrapperConfig,
)

from tasks import export
from tasks.clients.contract import TrackingConstants, tracking_constants
from tasks.config.models import TRACKING_GRAPHS
from tasks.inference import scripts
from tasks.inference.graph_file import tensors_of
from tasks.inference.metrics import mask_iou
from tasks.inference.scripts import Answer, Answers, PromptStep, Script, TrackStep, run_script
from tasks.inference.sessions import run_by_name
from tasks.inference.tracker import Tracker, prepare
from tasks.inference.video_reference import run_with_pytorch, through_jpeg
from tasks.model import edgetam, load
from tasks.model.edgetam_memory import LATENTS, EdgeTamVideoPredictor, places_of_latents
from tasks.model.patching import separated
from tasks.running import child
from tasks.system.errors import StageError

SIZE, FRAMES = 512, 5
SIDE = SIZE // 16


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def reference() -> EdgeTamVideoModel:
    """transformers' model with noise on every weight, and logits as large as trained ones."""
    torch.manual_seed(0)
    backbone = TimmWrapperConfig(
        architecture="repvit_m1",
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    )
    vision = EdgeTamVisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[384, 192, 96, 48],
        backbone_feature_sizes=[[scale * SIDE, scale * SIDE] for scale in (4, 2, 1)],
    )
    config = EdgeTamVideoConfig(
        vision_config=vision,
        prompt_encoder_config={"image_size": SIZE},
        image_size=SIZE,
        memory_attention_rope_feat_sizes=[SIDE, SIDE],
        # As in Meta's own configuration.
        enable_occlusion_spatial_embedding=False,
        enable_temporal_pos_encoding_for_object_pointers=False,
    )
    model = EdgeTamVideoModel(config).eval()
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=noise), alpha=0.02)
            if "output_hypernetworks_mlps" in name and "proj_out" in name:
                tensor.mul_(20)
            if name == "mask_decoder.pred_obj_score_head.proj_out.bias":
                tensor.add_(2)  # the object is there
        # The same matrix twice; nothing ties the copies here.
        model.shared_image_embedding.load_state_dict(
            model.prompt_encoder.shared_embedding.state_dict()
        )
        edgetam.settle_batch_norms(model.vision_encoder.backbone.timm_model, noise)
    return model


@pytest.fixture(scope="module")
def checkpoint(reference: EdgeTamVideoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edgetam-video")
    reference.save_pretrained(folder)
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> EdgeTamVideoPredictor:
    found = load.load_video_model("edgetam", checkpoint, SIZE)
    assert isinstance(found, EdgeTamVideoPredictor)
    return found


@pytest.fixture(scope="module")
def constants(predictor: EdgeTamVideoPredictor) -> TrackingConstants:
    return tracking_constants(predictor)


@pytest.fixture(scope="module")
def graphs(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("edgetam-graphs")
    names = ("encoder", *TRACKING_GRAPHS)
    traced = {name: folder / f"{name}.traced" for name in names}
    export.write_graphs(
        export.ExportRequest("edgetam", checkpoint, 20, "plain", {}, traced, SIZE, video=True)
    )
    simplified = {name: str(folder / f"{name}.onnx") for name in names}
    pairs = [[str(traced[name]), simplified[name]] for name in names]
    child.run("tasks.simplify:simplify_graphs", {"pairs": pairs}, folder / "log", False)
    return simplified


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest magnitude."""
    return float((found.reshape(wanted.shape) - wanted).abs().max() / wanted.abs().max())


def test_the_perceiver_matches_transformers(
    reference: EdgeTamVideoModel, predictor: EdgeTamVideoPredictor
) -> None:
    memory = torch.randn(1, 64, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    encoding = predictor.memory_encoder.position_encoding(memory)
    latents, places = reference.spatial_perceiver(memory, encoding)
    assert latents.shape == (1, LATENTS, 64)
    found = predictor.spatial_perceiver(memory, separated(encoding))
    assert difference(found, latents) < 2e-6
    assert difference(places_of_latents(predictor), places) < 2e-6


@pytest.mark.parametrize(("memories", "pointers"), [(1, 0), (3, 2)])
def test_memory_attention_matches_transformers(
    reference: EdgeTamVideoModel, predictor: EdgeTamVideoPredictor, memories: int, pointers: int
) -> None:
    noise = torch.Generator().manual_seed(memories)
    count = memories * LATENTS + 4 * pointers
    features, places = torch.randn(2, SIDE * SIDE, 1, 256, generator=noise)
    tokens, encodings = torch.randn(2, count, 1, 64, generator=noise)
    found = predictor.memory_attention(
        curr=[features],
        curr_pos=[places],
        memory=tokens,
        memory_pos=encodings,
        num_obj_ptr_tokens=4 * pointers,
    )
    wanted = reference.memory_attention(
        current_vision_features=features,
        current_vision_position_embeddings=places,
        memory=tokens,
        memory_posision_embeddings=encodings,
        num_object_pointer_tokens=4 * pointers,
        num_spatial_memory_tokens=memories,
    )
    assert difference(found, wanted) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize(("memories", "pointers"), [(1, 0), (1, 1), (7, 16)])
def test_the_memory_attention_graph_takes_any_number_of_memories_and_pointers(
    reference: EdgeTamVideoModel,
    predictor: EdgeTamVideoPredictor,
    graphs: dict[str, str],
    memories: int,
    pointers: int,
) -> None:
    noise = torch.Generator().manual_seed(memories)
    image_embed = torch.randn(1, 256, SIDE, SIDE, generator=noise)
    given = torch.randn(memories, LATENTS, 64, generator=noise)
    vectors = torch.randn(pointers, 256, generator=noise)
    times = torch.randint(0, 7, (memories,), dtype=torch.int32, generator=noise)
    found = run_by_name(graphs)(
        "memory_attention",
        {
            "image_embed": image_embed.numpy(),
            "memories": given.numpy(),
            "memory_times": times.numpy(),
            "pointers": vectors.numpy(),
        },
    )["conditioned_embed"]
    features = image_embed - reference.no_memory_embedding.reshape(1, -1, 1, 1)
    encoding = predictor.image_encoder.neck.position_encoding(features)
    in_time = reference.memory_temporal_positional_encoding[times].reshape(-1, 1, 64)
    places = places_of_latents(predictor) + in_time
    wanted = reference.memory_attention(
        current_vision_features=features.flatten(2).permute(2, 0, 1),
        current_vision_position_embeddings=encoding.flatten(2).permute(2, 0, 1),
        memory=torch.cat([given.reshape(-1, 1, 64), vectors.reshape(-1, 1, 64)]),
        memory_posision_embeddings=torch.cat(
            [places.reshape(-1, 1, 64), torch.zeros(4 * pointers, 1, 64)]
        ),
        num_object_pointer_tokens=4 * pointers,
        num_spatial_memory_tokens=memories,
    )
    rows = torch.from_numpy(found).flatten(2).permute(2, 0, 1)
    assert difference(rows, wanted) < 2e-6


@pytest.mark.parametrize("prompted", [True, False])
def test_the_memory_encoder_graph_matches_the_latents_of_transformers(
    reference: EdgeTamVideoModel, graphs: dict[str, str], prompted: bool
) -> None:
    noise = torch.Generator().manual_seed(1)
    image_embed = torch.randn(1, 256, SIDE, SIDE, generator=noise)
    logits = 3 * torch.randn(1, 1, 4 * SIDE, 4 * SIDE, generator=noise)
    found = run_by_name(graphs)(
        "memory_encoder",
        {
            "image_embed": image_embed.numpy(),
            "low_res_masks": logits.numpy(),
            "prompted": np.array([prompted], np.float32),
        },
    )["memory"]
    features = image_embed - reference.no_memory_embedding.reshape(1, -1, 1, 1)
    wanted, _ = reference._encode_new_memory(
        features.flatten(2).permute(2, 0, 1),
        functional.interpolate(logits, (SIZE, SIZE), mode="bilinear"),
        torch.ones(1, 1),
        is_mask_from_pts=prompted,
    )
    assert difference(torch.from_numpy(found), wanted) < 1e-5


@pytest.fixture(scope="module")
def script() -> Script:
    """A click on the first frame, then tracking to the last."""
    drawn = scripts.time_lapse(FRAMES)
    return Script("one click", drawn.frames, (drawn.steps[0], TrackStep(0)))


@pytest.fixture(scope="module")
def expected(reference: EdgeTamVideoModel, constants: TrackingConstants, script: Script) -> Answers:
    """transformers' answers to the script."""
    frames = through_jpeg(script).frames
    pixels = np.concatenate([prepare(frame, constants) for frame in frames])
    height, width = script.frames.shape[1:3]
    session = EdgeTamVideoInferenceSession(
        torch.from_numpy(pixels), height, width, dtype=torch.float32
    )
    click = script.steps[0]
    assert isinstance(click, PromptStep)
    ((x, y),) = click.prompt.points
    session.add_point_inputs(
        session.obj_id_to_idx(click.number),
        click.frame,
        {
            "point_coords": torch.tensor([[[[x * SIZE, y * SIZE]]]]),
            "point_labels": torch.ones(1, 1, 1, dtype=torch.int32),
        },
    )
    session.obj_with_new_inputs.append(click.number)
    prompted = reference(session, frame_idx=0)
    followed = list(reference.propagate_in_video_iterator(session))
    (outputs,) = session.output_dict_per_obj.values()
    found: Answers = {}
    for step, answers in enumerate(([prompted], followed)):
        for each in answers:
            frame = each.frame_idx
            kind = "cond_frame_outputs" if frame == 0 else "non_cond_frame_outputs"
            masks = functional.interpolate(each.pred_masks, (height, width), mode="bilinear")
            found[step, frame, click.number] = Answer(
                masks[0, 0].numpy() > 0,
                float(each.object_score_logits[0]),
                outputs[kind][frame]["object_pointer"].numpy().ravel(),
                predicted_iou=0.0,  # transformers keeps none
                magnitude=float(each.pred_masks.abs().mean()),
            )
    return found


def assert_equal(found: Answers, expected: Answers) -> None:
    assert list(found) == list(expected)
    for key, wanted in expected.items():
        assert mask_iou(found[key].mask, wanted.mask) > 0.999, key
        assert found[key].score == pytest.approx(wanted.score, abs=1e-5), key
        assert np.abs(found[key].pointer - wanted.pointer).max() < 1e-5, key


@pytest.mark.slow
def test_sam2s_predictor_tracks_as_transformers_does(
    predictor: EdgeTamVideoPredictor, script: Script, expected: Answers
) -> None:
    assert_equal(dict(run_with_pytorch(predictor, script)), expected)


def test_the_graphs_track_as_transformers_does(
    constants: TrackingConstants, graphs: dict[str, str], script: Script, expected: Answers
) -> None:
    seen = through_jpeg(script)
    tracker = Tracker(run_by_name(graphs), constants, list(seen.frames))
    assert_equal(dict(run_script(tracker, seen)), expected)


def test_a_memory_has_the_shape_of_the_perceivers_latents(graphs: dict[str, str]) -> None:
    tensors = tensors_of(graphs["memory_encoder"])
    (memory,) = tensors.outputs
    assert memory.shape == (1, LATENTS, 64)
    (memories,) = (
        each for each in tensors_of(graphs["memory_attention"]).inputs if each.name == "memories"
    )
    assert memories.shape == ("memories", LATENTS, 64)


def test_the_tracking_graphs_have_no_shape_operators(graphs: dict[str, str]) -> None:
    computing = {"Shape", "Range", "ConstantOfShape", "If", "Loop", "Tile", "NonZero", "Size"}
    for name in TRACKING_GRAPHS:
        used = {node.op_type for node in onnx.load(graphs[name]).graph.node}
        assert not used & computing, name


def test_an_image_size_that_does_not_divide_into_windows_is_refused_only_for_video() -> None:
    words = "image_size: found 800; allowed with `video = true` for EdgeTAM: a multiple of 256"
    with pytest.raises(StageError, match=words):
        load.build_model("edgetam", 800, video=True)
    assert load.build_model("edgetam", 800).image_size == 800
