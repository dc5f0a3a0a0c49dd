"""Compares the tracking graphs with sam2's own `SAM2VideoPredictor` over drawn clips.

It compares every frame's masks, scores and pointers. Targets: ``tracking.json``,
``tracking.<variant>.json``. Single precision must match PyTorch; the reports of the other variants
say how far they drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.building.stage import Stage, Workspace, describe_peak
from tasks.config.models import Target, Variant
from tasks.inference.metrics import written
from tasks.proof.failures import sentences
from tasks.proof.reports import Proof
from tasks.system.versions import versions

if TYPE_CHECKING:
    from tasks.clients.contract import TrackingConstants
    from tasks.inference.scripts import Answers
    from tasks.proof.figures import TrackingFigures

PACKAGES = ("onnxruntime", "onnx", "numpy", "pillow")


def declare(target: Target, variant: Variant) -> Stage:
    """The stage that compares one variant's tracking with PyTorch's."""
    proof = Proof("tracking", target, variant)
    return Stage(
        proof.subtask,
        measure_tracking,
        [target, variant],
        reads=[*target.tracker_graphs(variant).values(), target.source.tracking_reference],
        writes=[proof.path],
        shared="proof",
        inputs={**proof.inputs, **versions(*PACKAGES)},
    )


def measure_tracking(target: Target, variant: Variant, work: Workspace) -> dict[str, Any]:
    """Measure in a child process, judge, and write the report, whether the variant passes or fails.

    :raises StageError: when single precision does not match PyTorch.
    """
    proof = Proof("tracking", target, variant)
    request = TrackingRequest(
        graphs={name: str(path) for name, path in target.tracker_graphs(variant).items()},
        client=target.client.key,
        reference=str(target.source.tracking_reference),
    )
    figures = work.run("tasks.tracking:compare", request)
    memory = {"peak_memory": figures.pop("peak_memory")}
    failures = proof.conclude(figures)
    if failures and not variant.is_smaller:
        raise proof.error("tracked masks differ from PyTorch's", failures, work.log)
    summary = "not run" if "mask_iou" not in figures else summary_of(figures)
    if not failures:
        return {"summary": summary + describe_peak(memory), **memory}
    note = f"{target.name}'s {variant.name} is not deployed: {sentences(failures)}."
    return {"summary": f"BELOW: {summary}", "note": note, **memory}


def summary_of(figures: dict[str, Any]) -> str:
    """The figures on one line, for people."""
    iou = figures["mask_iou"]
    return (
        f"IoU with SAM2VideoPredictor's masks {written(iou['mean'], '.4f')}, worst "
        f"{written(iou['worst'], '.3f')}, object scores {written(figures['score_error'], '.1g')}, "
        f"{figures['answers']} masks of {len(figures['clips'])} clips"
    )


@dataclass(frozen=True)
class TrackingRequest:
    """The files of the client's encoder and of the tracking graphs, and PyTorch's answers."""

    graphs: Mapping[str, str]
    client: str
    reference: str


def compare(request: TrackingRequest) -> dict[str, Any]:
    """Follow the scripts' objects with a variant's files (runs in a child process).

    :returns: the hashes of ``files`` and of the files they were measured ``against``;
        ``violations`` of the contract, and the files' ``tensors``; the ``constants`` that a tracker
        needs; and, if there are no violations, `TrackingFigures`.
    """
    from tasks.clients.contract import as_json, tracking_contract
    from tasks.inference import graph_file, scripts
    from tasks.proof import failures
    from tasks.proof.binding import unchanged
    from tasks.proof.judgement import violations

    judged = {Path(path).name: path for path in request.graphs.values()}
    subject = {"tracking_reference": request.reference}
    with unchanged(judged) as files, unchanged(subject) as against:
        about, expected = scripts.read_answers(request.reference)
        contract = tracking_contract(about.dimensions, about.memory)
        tensors = {name: graph_file.tensors_of(request.graphs[name]) for name in contract}
        for name in contract:
            graph_file.check_graph(request.graphs[name])
        broken = violations(contract, tensors)
        figures = None if broken else follow_scripts(request, about.constants, expected)
    return {
        "files": files,
        "against": {**about.against, **against},
        "violations": failures.as_json(broken),
        "tensors": as_json(tensors),
        "constants": asdict(about.constants),
        **(asdict(figures) if figures else {}),
    }


def follow_scripts(
    request: TrackingRequest, constants: TrackingConstants, expected: Mapping[str, Answers]
) -> TrackingFigures:
    """Run every script with the files, and compare the answers with those ``expected``."""
    from tasks.clients.registry import client_by_key
    from tasks.inference import scripts, sessions, video_reference
    from tasks.inference.tracker import Tracker
    from tasks.proof.drift import compare_answers

    encoder = client_by_key(request.client).encoder
    run = sessions.run_by_name(request.graphs, {"encoder": encoder})
    answers: dict[str, tuple[Answers, Answers]] = {}
    for script in map(video_reference.through_jpeg, scripts.proof_scripts()):
        right = expected[script.name]
        steps = scripts.run_script(Tracker(run, constants, list(script.frames)), script)
        answers[script.name] = scripts.collect(script.name, steps, len(right)), right
    return compare_answers(answers)
