"""Compares the graphs that track with sam2's own `SAM2VideoPredictor` over drawn clips.

Follows the same objects with a variant's files, and compares every frame's masks, scores and
pointers. Targets: ``tracking.json``, ``tracking.<variant>.json``. Single
precision must do what PyTorch does; the reports of the others say how far they drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.building.stage import declare, describe_peak, workspace
from tasks.building.staleness import versions
from tasks.config.schema import Configuration, Model, Variant
from tasks.inference.metrics import written
from tasks.inference.progress import show_masks
from tasks.proof import reports
from tasks.proof.failures import sentences
from tasks.proof.judgement import judge, rules_of
from tasks.records import artifacts
from tasks.system.errors import StageError

if TYPE_CHECKING:
    from doit.task import Task

    from tasks.inference.clips import Answers

PACKAGES = ("onnxruntime", "onnx", "numpy", "pillow")


def task(config: Configuration, model: Model, variant: Variant) -> dict[str, Any]:
    """doit's task for one variant."""
    return declare(
        f"{model.name}:{variant.name}",
        measure_tracking,
        [config, model, variant],
        reads=[
            *graphs_of(config, model, variant).values(),
            artifacts.tracking_reference(config, model),
        ],
        writes=[artifacts.report(config, model, "tracking", variant)],
        shared="proof",
        inputs={
            **reports.asked(config, model, "tracking", variant),
            **rules_of(config, model, variant, "tracking"),
            "contract": model.client.as_json(),
            **versions(*PACKAGES),
        },
    )


def graphs_of(config: Configuration, model: Model, variant: Variant) -> artifacts.Graphs:
    """What a tracker runs: the client's encoder, and the graphs that track."""
    encoder = artifacts.graphs(config, model, variant)["encoder"]
    return {"encoder": encoder, **artifacts.tracking_graphs(config, model, variant)}


def measure_tracking(
    config: Configuration, model: Model, variant: Variant, task: Task
) -> dict[str, Any]:
    """Measure in a child process, judge, and write the report whichever way it went.

    :raises StageError: when single precision does not do what PyTorch does.
    """
    with workspace(config.build, task) as work:
        figures = work.run(
            "tasks.tracking:compare",
            graphs={name: str(path) for name, path in graphs_of(config, model, variant).items()},
            client=model.client.name,
            reference=str(artifacts.tracking_reference(config, model)),
        )
    memory = {"peak_memory": figures.pop("peak_memory")}
    found = judge(config, model, variant, "tracking", figures)
    path = artifacts.report(config, model, "tracking", variant)
    reports.write(
        path,
        "tracking",
        reports.asked(config, model, "tracking", variant),
        rules_of(config, model, variant, "tracking"),
        found,
        figures,
    )
    if found and variant.precision == "fp32":
        raise StageError(
            f"{path.parent} does not track as PyTorch does, and is not deployed:\n"
            + "\n".join(f"- {failure}" for failure in found)
            + f"\nReport: {path}. Log: {work.log}"
        )
    summary = "not run" if "mask_iou" not in figures else summary_of(figures)
    if not found:
        return {"summary": summary + describe_peak(memory), **memory}
    note = f"{model.name}'s {variant.name} is not deployed: {sentences(found)}."
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

    from tasks.clients.contract import GraphTensors, as_json, tracking_contract
    from tasks.clients.registry import client_by_name
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
        contract = tracking_contract(about.dimensions, about.memory)
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
        run = run_by_name(graphs, {"encoder": client_by_name(client).encoder})
        compared = []
        for clip in map(through_jpeg, clips()):
            answers: Answers = {}
            for key, answer in play(Tracker(run, about.constants, list(clip.frames)), clip):
                answers[key] = answer
                show_masks(clip.name, len(answers), len(expected[clip.name]))
            compared.append({"name": clip.name, **drift.difference(answers, expected[clip.name])})
    return {**figures, **drift.summary_of(compared)}
