"""Compares the graphs that track with sam2's own `SAM2VideoPredictor` over drawn clips.

Follows the same objects with a variant's files, and compares every frame's masks, scores and
pointers. Targets: ``tracking.json``, ``tracking.<variant>.json``. Single
precision must do what PyTorch does; the reports of the others say how far they drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
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

    from tasks.clients.contract import TrackingConstants
    from tasks.inference.scripts import Answers
    from tasks.proof.figures import TrackingFigures

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
        request = TrackingRequest(
            graphs={name: str(path) for name, path in graphs_of(config, model, variant).items()},
            client=model.client.name,
            reference=str(artifacts.tracking_reference(config, model)),
        )
        figures = work.run("tasks.tracking:compare", request)
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


@dataclass(frozen=True)
class TrackingRequest:
    """The file of the encoder and of each graph that tracks, by name, and PyTorch's answers.

    ``client`` is the name of the client whose encoder it is.
    """

    graphs: Mapping[str, str]
    client: str
    reference: str


def compare(request: TrackingRequest) -> dict[str, Any]:
    """Follow the scripts' objects with a variant's files (runs in a child process).

    :returns: ``files`` and ``against``, the hashes of what was measured and against what;
        ``violations`` of the contract, and the ``tensors`` of the files; the ``constants`` that a
        tracker needs; and, where there are no violations, `TrackingFigures`.
    """
    from tasks.clients.contract import as_json, tracking_contract
    from tasks.inference import tracking_file
    from tasks.inference.graph_file import check_graph, tensors_of
    from tasks.proof import failures
    from tasks.proof.binding import unchanged
    from tasks.proof.judgement import violations

    judged = {Path(path).name: path for path in request.graphs.values()}
    with (
        unchanged(judged) as files,
        unchanged({"tracking_reference": request.reference}) as against,
    ):
        about, expected = tracking_file.read(request.reference)
        contract = tracking_contract(about.dimensions, about.memory)
        tensors = {name: tensors_of(request.graphs[name]) for name in contract}
        for name in contract:
            check_graph(request.graphs[name])
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
    """Run every script with the files, and compare the answers.

    :param expected: PyTorch's answers, by the script's name.
    """
    from tasks.clients.registry import client_by_name
    from tasks.inference.scripts import proof_scripts, run_script
    from tasks.inference.sessions import run_by_name
    from tasks.inference.tracker import Tracker
    from tasks.inference.video_reference import through_jpeg
    from tasks.proof.drift import compare_answers

    run = run_by_name(request.graphs, {"encoder": client_by_name(request.client).encoder})
    answers: dict[str, Answers] = {}
    for script in map(through_jpeg, proof_scripts()):
        answers[script.name] = own = {}
        for key, answer in run_script(Tracker(run, constants, list(script.frames)), script):
            own[key] = answer
            show_masks(script.name, len(own), len(expected[script.name]))
    return compare_answers({name: (own, expected[name]) for name, own in answers.items()})
