"""What the tracking proof must catch: wrong graphs, and wrong constants in the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from tracking_mutations import CONSTANTS, DECODER, MUTATIONS, Mutation, OtherConstants

from tasks import export, tracking, tracking_reference
from tasks.clients.contract import TrackingConstants
from tasks.config.models import TRACKING_GRAPHS
from tasks.inference import scripts
from tasks.inference.sessions import run_by_name
from tasks.inference.tracker import Tracker
from tasks.inference.video_reference import through_jpeg
from tasks.model.trained import TrainedModel
from tasks.proof.drift import compare_answers
from tasks.proof.failures import Failure
from tasks.proof.judgement import PYTORCH, TrackingRules, drift_failures, tracking_failures
from tasks.running import child

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[1] / "demo/sam2_demo_video.yaml"
RULES = TrackingRules("[tracking]", "mask_iou", mask_iou=0.999, worst=0.99, scores=1e-3, flips=0.0)


class Proof:
    """The demo's weights for images of 128 pixels as graphs, and PyTorch's answers.

    With trained weights, the masks depend on what a tracker remembers, and on when that was.
    """

    def __init__(self, folder: Path) -> None:
        text = DEMO.read_text().replace("image_size: 1024", "image_size: 128")
        architecture = folder / "small.yaml"
        architecture.write_text(text.replace("feat_sizes: [64, 64]", "feat_sizes: [8, 8]"))
        checkpoint = str(DEMO.with_suffix(".pt"))
        names = ("encoder", *TRACKING_GRAPHS)
        self.graphs = {name: str(folder / f"{name}.onnx") for name in names}
        traced = {name: folder / f"{name}.traced" for name in names}
        export.write_graphs(
            export.ExportRequest(
                str(architecture), Path(checkpoint), 20, "plain", {}, traced, video=True
            )
        )
        pairs = [[str(traced[name]), path] for name, path in self.graphs.items()]
        child.run("tasks.simplify:simplify_graphs", {"pairs": pairs}, folder / "log", False)
        self.reference = str(folder / "reference.npz")
        tracking_reference.write_reference(
            tracking_reference.TrackingReferenceRequest(
                TrainedModel(str(architecture), checkpoint), self.reference
            )
        )
        about, self.expected = scripts.read_answers(self.reference)
        self.constants = about.constants
        self.scripts = [through_jpeg(script) for script in scripts.proof_scripts()]
        self._run = run_by_name(self.graphs)
        self._encoded: dict[bytes, Mapping[str, Any]] = {}

    def encoded(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """No mutation changes the encoder, so each frame is encoded only once."""
        key = feeds["image"].tobytes()
        if key not in self._encoded:
            self._encoded[key] = self._run("encoder", feeds)
        return self._encoded[key]

    def first_failures(
        self, graphs: Mapping[str, str], constants: TrackingConstants
    ) -> list[Failure]:
        """The failures of the first answer that by itself makes the proof fail.

        Each answer is judged as the proof judges all of them: by the worst mask and the largest
        differences. Only the mean is left out.
        """
        other = run_by_name(graphs)

        def run(graph: str, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
            if graph == "encoder":
                return self.encoded(feeds)
            return (other if graph in graphs else self._run)(graph, feeds)

        for script in self.scripts:
            expected = self.expected[script.name]
            tracker = Tracker(run, constants, list(script.frames))
            for key, answer in scripts.run_script(tracker, script):
                pair = {key: answer}, {key: expected[key]}
                figures = asdict(compare_answers({script.name: pair}))
                found = drift_failures(figures, RULES, PYTORCH)
                certain = [each for each in found if each.kind != "mean iou"]
                if certain:
                    return certain
        return []

    def judged(self, graphs: Mapping[str, str]) -> list[Failure]:
        """The failures of the whole proof."""
        figures = tracking.compare(
            tracking.TrackingRequest(dict(graphs), "nimbusimage", self.reference)
        )
        return tracking_failures(figures, RULES)


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield Proof(tmp_path_factory.mktemp("mutations"))
    torch.set_num_threads(threads)


def mutated(proof: Proof, mutation: Mutation, folder: Path) -> dict[str, str]:
    model = onnx.load(proof.graphs[mutation.graph])
    mutation.change(model)
    path = folder / f"{mutation.graph}.onnx"
    onnx.save(model, path)
    return {mutation.graph: str(path)}


def test_unmodified_graphs_pass(proof: Proof) -> None:
    assert proof.judged(proof.graphs) == []
    assert proof.first_failures({}, proof.constants) == []


def test_the_clips_have_present_and_absent_objects(proof: Proof) -> None:
    for answers in proof.expected.values():
        scores = [answer.score for answer in answers.values()]
        assert min(scores) < 0 < max(scores)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_wrong_graph_is_caught(proof: Proof, mutation: Mutation, tmp_path: Path) -> None:
    assert proof.first_failures(mutated(proof, mutation, tmp_path), proof.constants)


@pytest.mark.parametrize("other", CONSTANTS, ids=str)
def test_a_wrong_constant_is_caught(proof: Proof, other: OtherConstants) -> None:
    assert proof.first_failures({}, replace(proof.constants, **other.changes))


def test_the_whole_proof_catches_a_nan_score_of_an_absent_object(
    proof: Proof, tmp_path: Path
) -> None:
    (mutation,) = [
        each for each in MUTATIONS if each.name == "the score of an absent object is NaN"
    ]
    assert mutation.graph == DECODER
    found = proof.judged({**proof.graphs, **mutated(proof, mutation, tmp_path)})
    judged = {each.kind: each.found for each in found}
    assert (judged["object scores"], judged["occlusion"]) == (None, None)
