"""Compares the graphs that track with sam2's own `SAM2VideoPredictor` over drawn clips.

Follows the same objects with a variant's files, and compares every frame's masks, scores and
pointers. Targets: ``tracking.json``, ``tracking.<variant>.json``. Single
precision must do what PyTorch does; the reports of the others say how far they drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.building.stage import Stage, Workspace, describe_peak
from tasks.config.models import Target, Variant
from tasks.inference.metrics import written
from tasks.inference.progress import show_masks
from tasks.proof.failures import sentences
from tasks.proof.reports import Proof
from tasks.system.versions import versions

if TYPE_CHECKING:
    from tasks.inference.clips import Answers

PACKAGES = ("onnxruntime", "onnx", "numpy", "pillow")


def declare(target: Target, variant: Variant) -> Stage:
    """The comparison of one variant's tracking with PyTorch's."""
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
    """Measure in a child process, judge, and write the report whichever way it went.

    :raises StageError: when single precision does not do what PyTorch does.
    """
    proof = Proof("tracking", target, variant)
    figures = work.run(
        "tasks.tracking:compare",
        graphs={name: str(path) for name, path in target.tracker_graphs(variant).items()},
        client=target.client.name,
        reference=str(target.source.tracking_reference),
    )
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
    """The figures on a line, for people."""
    iou = figures["mask_iou"]
    return (
        f"IoU with SAM2VideoPredictor's masks {written(iou['mean'], '.4f')}, worst "
        f"{written(iou['worst'], '.3f')}, object scores {written(figures['score_error'], '.1g')}, "
        f"{figures['answers']} masks of {len(figures['clips'])} clips"
    )


def compare(graphs: dict[str, str], client: str, reference: str) -> dict[str, Any]:
    """Follow the clips' objects with a variant's files (runs in a child process).

    :param graphs: the file of the encoder and of each graph that tracks, by name.
    :param client: that loads the encoder, by name.
    :returns: ``files`` and ``against``, the hashes of what was measured and against what;
        ``violations`` of the contract and the ``tensors`` found; the ``constants`` that a tracker
        needs; over all ``answers``, of which there must be as many as ``expected``, the
        ``mask_iou`` (``mean``, ``worst``), the largest differences of the object's score
        (``score_error``), of pointers, relative to the largest magnitude (``pointer_error``), of
        predicted IoUs (``iou_error``) and of the mean magnitude of a mask's logits, relative to it
        (``logit_error``), and for what share it is decided otherwise whether the object is there
        (``occlusion_flips``); and each of ``clips`` with the IoU by frame, in the order in which
        frames were tracked. Each figure is None where a number in it is not finite.
    """
    from dataclasses import asdict

    import onnx

    from tasks.clients.client import named
    from tasks.clients.contract import GraphTensors, as_json, tracking
    from tasks.inference import drift, tracking_file
    from tasks.inference.clips import clips, play
    from tasks.inference.graph_file import read_graph, tensors_of
    from tasks.inference.sessions import run_by_name
    from tasks.inference.tracker import Tracker
    from tasks.inference.video_reference import through_jpeg
    from tasks.proof import failures
    from tasks.proof.binding import unchanged
    from tasks.proof.judgement import violations

    judged = {path.rpartition("/")[2]: path for path in graphs.values()}
    subject = {"tracking_reference": reference}
    with unchanged(judged) as files, unchanged(subject) as against:
        about, expected = tracking_file.read(reference)
        contract = tracking(about.dimensions, about.memory)
        found: dict[str, GraphTensors] = {}
        for name in contract:
            found[name] = tensors_of(read_graph(graphs[name]))
            onnx.checker.check_model(graphs[name], full_check=True)
        figures: dict[str, Any] = {
            "files": files,
            "against": {**about.against, **against},
            "violations": failures.as_json(violations(contract, found)),
            "tensors": as_json(found),
            "constants": asdict(about.constants),
        }
        if figures["violations"]:
            return figures
        run = run_by_name(graphs, {"encoder": named(client).encoder})
        compared = []
        for clip in map(through_jpeg, clips()):
            answers: Answers = {}
            for key, answer in play(Tracker(run, about.constants, list(clip.frames)), clip):
                answers[key] = answer
                show_masks(clip.name, len(answers), len(expected[clip.name]))
            compared.append({"name": clip.name, **drift.difference(answers, expected[clip.name])})
    return {**figures, **drift.summary_of(compared)}
