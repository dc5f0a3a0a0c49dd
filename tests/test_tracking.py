"""The tracking graphs and the Python tracker that runs them, compared with sam2's predictor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from tasks import export
from tasks.clients.contract import TrackingConstants, tracking_constants
from tasks.config.models import TRACKING_GRAPHS
from tasks.inference import scripts
from tasks.inference.metrics import mask_iou
from tasks.inference.prompts import Prompt
from tasks.inference.scripts import Answers, PromptStep, Script, TrackStep, run_script
from tasks.inference.sessions import run_by_name
from tasks.inference.tracker import Selection, Tracker, select
from tasks.inference.video_reference import run_with_pytorch, through_jpeg
from tasks.model import load
from tasks.running import child
from tasks.system.errors import StageError

ARCHITECTURES = {"sam2_hiera_tiny": 2, "sam2.1_hiera_tiny": 1}  # each with a seed
SIZE, FRAMES = 256, 8
CLICK = Prompt(points=((0.21, 0.28),), labels=(1,))
PUBLISHED = TrackingConstants(SIZE, 7, 1, 16, -1, True, True, (0, 1), True, False)


class Built:
    """A model with random weights, in PyTorch and as graphs."""

    def __init__(self, architecture: str, folder: Path) -> None:
        checkpoint = str(folder / "checkpoint.pt")
        load.make_synthetic(architecture, ARCHITECTURES[architecture], checkpoint)
        self.predictor: SAM2VideoPredictor = load.load_video_model(architecture, checkpoint, SIZE)
        names = ("encoder", *TRACKING_GRAPHS)
        self.graphs = {name: str(folder / f"{name}.onnx") for name in names}
        traced = {name: folder / f"{name}.traced" for name in names}
        export.write_graphs(
            export.ExportRequest(
                architecture, Path(checkpoint), 20, "plain", {}, traced, SIZE, video=True
            )
        )
        pairs = [[str(traced[name]), path] for name, path in self.graphs.items()]
        log = folder / "simplify.log"
        child.run("tasks.simplify:simplify_graphs", {"pairs": pairs}, log, False)
        self.constants = tracking_constants(self.predictor)
        self.run = run_by_name(self.graphs)

    def tracker(self, frames: Any) -> Tracker:
        return Tracker(self.run, self.constants, frames)


@pytest.fixture(
    scope="module",
    params=[pytest.param(each, marks=pytest.mark.slow) for each in ARCHITECTURES],
)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(request.param, tmp_path_factory.mktemp("tracking"))


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def assert_equal(found: Answers, expected: Answers) -> None:
    assert list(found) == list(expected)
    for key, answer in found.items():
        wanted = expected[key]
        assert mask_iou(answer.mask, wanted.mask) > 0.999, key
        assert answer.score == pytest.approx(wanted.score, abs=1e-4), key
        assert np.abs(answer.pointer - wanted.pointer).max() < 1e-4, key
        assert answer.predicted_iou == pytest.approx(wanted.predicted_iou, abs=1e-5), key
        assert answer.magnitude == pytest.approx(wanted.magnitude, rel=1e-4), key


@pytest.mark.parametrize(
    "drawn",
    [
        pytest.param(scripts.time_lapse, id="time-lapse"),
        pytest.param(scripts.stack, id="stack"),
    ],
)
def test_every_answer_matches_sam2s_predictor(built: Built, drawn: Callable[[int], Script]) -> None:
    script = drawn(FRAMES)
    expected: Answers = dict(run_with_pytorch(built.predictor, script))
    seen = through_jpeg(script)
    found: Answers = dict(run_script(built.tracker(seen.frames), seen))
    assert_equal(found, expected)
    assert len({step for step, _, _ in found}) == len(script.steps)


def test_the_reference_keeps_memories_in_single_precision(built: Built) -> None:
    """Rounded to bfloat16, as sam2 keeps them, nearly equal memories would differ by 0.4 %."""
    seen: list[torch.Tensor] = []
    attention = built.predictor.memory_attention
    hook = attention.register_forward_pre_hook(
        lambda module, given, named: seen.append(named["memory"]), with_kwargs=True
    )
    try:
        script = scripts.time_lapse(FRAMES)
        dict(
            run_with_pytorch(
                built.predictor, replace(script, steps=[*script.steps[:1], TrackStep(0)])
            )
        )
    finally:
        hook.remove()
    assert seen
    places = (SIZE // 16) ** 2
    assert not any(
        torch.equal(each[:places], each[:places].to(torch.bfloat16).float()) for each in seen
    )


def test_the_scripts_have_present_and_absent_objects(built: Built) -> None:
    seen = through_jpeg(scripts.time_lapse(FRAMES))
    scores = [answer.score for _, answer in run_script(built.tracker(seen.frames), seen)]
    assert min(scores) < 0 < max(scores)


def test_the_encoder_runs_once_per_frame_for_all_objects(built: Built) -> None:
    runs = []

    def counted(graph: str, feeds: Any) -> Any:
        runs.append(graph)
        return built.run(graph, feeds)

    frames = scripts.time_lapse(3).frames
    tracker = Tracker(counted, built.constants, frames)
    for number in (1, 2, 3):
        tracker.prompt(0, number, Prompt(points=((0.1 * number, 0.28),), labels=(1,)))
    assert len(list(tracker.track())) == 3
    assert runs.count("encoder") == 3
    assert runs.count("memory_attention") == 2 * 3


def test_a_prompt_after_tracking_does_not_depend_on_another_object(built: Built) -> None:
    frames = scripts.time_lapse(3).frames
    tracker = built.tracker(frames)
    alone = built.tracker(frames).prompt(1, 1, CLICK)
    tracker.prompt(0, 7, CLICK)
    list(tracker.track())
    assert np.array_equal(tracker.prompt(1, 1, CLICK).low_res_masks, alone.low_res_masks)


def test_a_correction_of_a_prompted_frame_changes_later_tracking(built: Built) -> None:
    tracker = built.tracker(scripts.time_lapse(3).frames)
    tracker.prompt(0, 1, CLICK)
    before = [found[1].pointer for _, found in tracker.track()]
    corrected = tracker.prompt(0, 1, Prompt(box=(0.02, 0.03, 0.63, 0.56)))
    after = [found[1].pointer for _, found in tracker.track()]
    assert np.array_equal(after[0], corrected.pointer)
    assert not np.array_equal(before[0], after[0])


@pytest.mark.parametrize(
    ("frame", "prompt", "words"),
    [
        (3, CLICK, "frame 3: expected one from 0 to 2"),
        (-1, CLICK, "frame -1: expected one"),
        (0, Prompt(), "expected a mask, a box, or points"),
        (0, Prompt(points=((0.2, 0.3),), labels=(1, 0)), "a label each"),
        (0, Prompt(mask=np.zeros((360, 480), bool)), "the mask on frame 0 is empty"),
    ],
)
def test_an_invalid_prompt_is_refused_and_leaves_no_object(
    built: Built, frame: int, prompt: Prompt, words: str
) -> None:
    tracker = built.tracker(scripts.time_lapse(3).frames)
    with pytest.raises(ValueError, match=words):
        tracker.prompt(frame, 1, prompt)
    with pytest.raises(ValueError, match="expected a prompt for at least one object"):
        list(tracker.track())


def test_a_single_frame_matches_sam2s_predictor_and_can_be_corrected(
    built: Built,
) -> None:
    """For one frame sam2 divides the age of a pointer, 0, by the reach of pointers, 0: NaN."""
    drawn = scripts.time_lapse(2)
    single = Script("one", drawn.frames[:1], (PromptStep(0, 1, CLICK), TrackStep(0)))
    expected = dict(run_with_pytorch(built.predictor, single))
    seen = through_jpeg(single)
    tracker = built.tracker(seen.frames)
    found = dict(run_script(tracker, seen))
    assert_equal(found, expected)
    corrected = tracker.prompt(0, 1, CLICK)
    assert np.isfinite(corrected.low_res_masks).all()
    assert np.isfinite([corrected.object_score, *corrected.pointer[0]]).all()


def test_no_operator_computes_a_shape(built: Built) -> None:
    computing = {"Shape", "Range", "ConstantOfShape", "If", "Loop", "Tile", "NonZero", "Size"}
    for name in TRACKING_GRAPHS:
        used = {node.op_type for node in onnx.load(built.graphs[name]).graph.node}
        assert not used & computing, name


def test_the_newest_memories_are_selected_with_the_prompted_one() -> None:
    chosen = select(9, False, 24, [0], range(1, 9), PUBLISHED)
    assert chosen.memories == [(0, 6), (3, 5), (4, 4), (5, 3), (6, 2), (7, 1), (8, 0)]
    assert chosen.pointers == [(0, 9), *((9 - age, age) for age in range(1, 9))]


def test_in_reverse_the_following_frames_are_the_newest() -> None:
    chosen = select(8, True, 24, [12], range(9, 24), PUBLISHED)
    assert chosen.memories[:2] == [(12, 6), (14, 5)]
    assert chosen.memories[-1] == (9, 0)
    assert chosen.pointers[:2] == [(12, 4), (9, 1)]


def test_a_frame_before_the_prompted_one_gets_its_memory_but_no_pointer() -> None:
    assert select(0, False, 24, [12], [], PUBLISHED) == Selection([(12, 6)], [])
    both_ways = replace(PUBLISHED, pointers_from_past_only=False)
    assert select(0, False, 24, [12], [], both_ways).pointers == [(12, -12)]
    unsigned = replace(both_ways, signed_pointer_times=False)
    assert select(0, False, 24, [12], [], unsigned).pointers == [(12, 12)]


def test_pointers_are_limited_by_the_length_of_the_clip() -> None:
    assert len(select(20, False, 24, [0], range(1, 20), PUBLISHED).pointers) == 16
    assert len(select(3, False, 3, [0], range(1, 3), PUBLISHED).pointers) == 3


def test_conditioning_frames_beyond_the_limit_count_as_tracked_frames() -> None:
    few = replace(PUBLISHED, max_conditioning_frames=2)
    chosen = select(10, False, 24, [0, 4, 9, 20], range(5, 9), few)
    assert {frame for frame, time in chosen.memories if time == 6} == {9, 20}
    assert (4, 5) in chosen.memories
    assert (0, 9) not in chosen.memories


def test_a_checkpoint_without_a_memory_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "images.pt"
    model = load.build_model("sam2.1_hiera_tiny")
    weights = {name: value for name, value in model.state_dict().items() if "memory_" not in name}
    torch.save({"model": weights}, checkpoint)
    with pytest.raises(StageError, match=r"images\.pt has no memory weights"):
        load.load_video_model("sam2.1_hiera_tiny", checkpoint)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("num_maskmem: 7", "num_maskmem: 0", "num_maskmem: found 0"),
        ("pos_enc_at_input: true", "pos_enc_at_input: false", "pos_enc_at_input: found False"),
        ("activation: relu", "activation: gelu", "activation: found 'gelu'"),
        (
            "use_obj_ptrs_in_encoder: true",
            "use_obj_ptrs_in_encoder: false",
            "use_obj_ptrs_in_encoder: found False",
        ),
    ],
)
def test_an_unsupported_memory_setting_is_refused_with_its_key(
    tmp_path: Path, old: str, new: str, key: str
) -> None:
    import sam2

    text = (Path(sam2.__file__).parent / "configs/sam2.1/sam2.1_hiera_t.yaml").read_text()
    assert old in text
    path = tmp_path / "other.yaml"
    text = text.replace(old, new)
    if "use_obj_ptrs_in_encoder: false" in text:
        for name in ("add_tpos_enc", "proj_tpos_enc"):
            text = text.replace(f"{name}_to_obj_ptrs: true", f"{name}_to_obj_ptrs: false")
            text = text.replace(f"{name}_in_obj_ptrs: true", f"{name}_in_obj_ptrs: false")
        text = text.replace("fixed_no_obj_ptr: true", "fixed_no_obj_ptr: false")
    path.write_text(text)
    with pytest.raises(StageError, match=rf"other\.yaml model\..*{key}"):
        load.build_model(str(path), video=True)


def test_a_yaml_file_with_a_memory_builds_the_same_model_as_sam2s_video_builder(
    tmp_path: Path,
) -> None:
    import sam2

    published = Path(sam2.__file__).parent / "configs/sam2.1/sam2.1_hiera_t.yaml"
    path = tmp_path / "own.yaml"
    path.write_text(published.read_text())
    own = load.build_model(str(path), video=True)
    by_name = load.build_model("sam2.1_hiera_tiny", video=True)
    assert isinstance(own, SAM2VideoPredictor)
    assert tracking_constants(own) == tracking_constants(by_name)
    assert own.binarize_mask_from_pts_for_mem_enc == by_name.binarize_mask_from_pts_for_mem_enc
    assert own.state_dict().keys() == by_name.state_dict().keys()
