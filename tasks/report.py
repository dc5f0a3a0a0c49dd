"""`doit report`: what the stages measured, on one HTML page, and in Markdown for a pull request.

Read from the stages' reports of every model that was built, so it reruns only when one of them
changed. Targets in ``<build>/report``: ``report.html`` (self-contained), ``report.md`` and
``report.json``, which the next report compares itself with.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import browser, child, deploy, fidelity, state, variant, verify
from tasks.configuration import FP32, Configuration, Model, Variant
from tasks.files import mebibytes, write_atomically
from tasks.fingerprint import FINGERPRINTS
from tasks.staleness import Trace

if TYPE_CHECKING:
    from doit.task import Task

TEMPLATES = Path("tasks/templates")
STAGES = ("export", "simplify", "verify", "reference", "variant", "fidelity", "browser")

Row = dict[str, Any]


def folder(config: Configuration) -> Path:
    """Where the report is written."""
    return config.build / "report"


def task(config: Configuration) -> dict[str, Any]:
    """doit's task."""
    targets = [folder(config) / f"report.{kind}" for kind in ("html", "md", "json")]

    def is_of_these_reports(task: Task, values: Mapping[str, Any]) -> bool:
        # Which reports there are is known only when the stages before this one have run.
        return Trace(reports(config))(task, values)

    return {
        "actions": [(write, [config])],
        "file_dep": [
            *("tasks/report.py", str(TEMPLATES / "report.html"), str(TEMPLATES / "report.md")),
        ],
        "targets": list(map(str, targets)),
        "uptodate": [is_of_these_reports],
        "clean": True,
        "io": {"capture": False},
    }


def reports(config: Configuration) -> dict[str, str]:
    """The SHA-256 of every file that a report is made of."""
    found: dict[str, str] = {}
    for model in config.models:
        paths = [verify.report_path(config, model), deploy.manifest_path(model)]
        for each in dict.fromkeys([FP32, *model.variants]):
            paths += [
                browser.report_path(config, model, each),
                fidelity.report_path(config, model, each),
                fidelity.picture_path(config, model, each),
            ]
        found |= {str(path): FINGERPRINTS.sha256(path) for path in paths if path.is_file()}
    return found


@child.action
def write(config: Configuration) -> dict[str, Any]:
    """Gather, compare with the report before, and write all three files."""
    import jinja2

    models = [gather(config, model) for model in config.models if _is_built(config, model)]
    target = folder(config) / "report.json"
    data: dict[str, Any] = {"models": models, "changes": []}
    if target.is_file():
        previous = json.loads(target.read_text())
        same = previous["models"] == models
        data["changes"] = previous["changes"] if same else changes(previous["models"], models)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: bool(name and name.endswith(".html")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"mebibytes": mebibytes, "milliseconds": milliseconds}
    pictures = {model.name: _pictures(config, model) for model in config.models}
    charts = {model["name"]: charts_of(model["variants"]) for model in models}
    for kind in ("html", "md"):
        text = environment.get_template(f"report.{kind}").render(
            **data, pictures=pictures, charts=charts, config=config.path
        )
        write_atomically(folder(config) / f"report.{kind}", text)
    write_atomically(target, json.dumps(data, indent=2) + "\n")
    if not models:
        return {"summary": f"no model is built yet; {folder(config) / 'report.html'} says so"}
    rows = sum(len(model["variants"]) for model in models)
    return {
        "summary": f"{rows} variants of {len(models)} models in {folder(config) / 'report.html'}"
    }


def _is_built(config: Configuration, model: Model) -> bool:
    return verify.report_path(config, model).is_file()


def gather(config: Configuration, model: Model) -> dict[str, Any]:
    """Everything that is told of one model."""
    records = state.recorded_values(config.build / "state" / "doit.json")
    own = {name: values for name, values in records.items() if name.split(":")[1:2] == [model.name]}
    proof = verify.read_report(config, model)
    manifest = _read(deploy.manifest_path(model))
    told = {each["name"]: each for each in manifest.get("variants", [])}
    return {
        "name": model.name,
        "architecture": model.architecture,
        "deploy": str(model.deploy),
        "parity": verify.worst_figures(proof["figures"]),
        "truth": proof["truth"],
        "packages": manifest.get("packages", {}),
        "memory": {stage: peak for stage in STAGES if (peak := max(_peaks(own, stage), default=0))},
        "variants": [
            row(config, model, each, own, told.get(each.name))
            for each in dict.fromkeys([FP32, *model.variants])
            if all(path.is_file() for path in variant.graphs(config, model, each))
        ],
    }


def _peaks(records: Mapping[str, Mapping[str, Any]], stage: str) -> list[int]:
    return [
        values["peak_memory"]
        for name, values in records.items()
        if name.split(":")[0] == stage and values.get("peak_memory")
    ]


def row(
    config: Configuration,
    model: Model,
    chosen: Variant,
    records: Mapping[str, Mapping[str, Any]],
    told: Mapping[str, Any] | None,
) -> Row:
    """What is told of one variant; None where it was not measured."""
    sizes = [path.stat().st_size for path in variant.graphs(config, model, chosen)]
    base = [path.stat().st_size for path in variant.graphs(config, model, FP32)]
    measured = _read(fidelity.report_path(config, model, chosen))
    seen = _read(browser.report_path(config, model, chosen))
    made = records.get(f"variant:{model.name}:{chosen.name}", {})
    nodes = made.get("nodes")
    if chosen == FP32 and f"simplify:{model.name}" in records:
        nodes = [after for _, after in records[f"simplify:{model.name}"]["nodes"]]
    return {
        "name": chosen.name,
        "files": list(chosen.file_names),
        "sizes": sizes,
        "size": sum(sizes),
        "share": round(sum(sizes) / sum(base), 4),
        "nodes": nodes,
        "fidelity": measured and {key: measured[key] for key in fidelity.FIGURES},
        "native": measured and {**measured["native"], "memory": measured["peak_memory"]},
        "wasm": _provider(seen, "wasm"),
        "webgpu": _provider(seen, "webgpu"),
        "page_memory": seen.get("memory", {}).get("renderer"),
        "state": _state(told),
    }


def _state(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return "not deployed: not asked for, or its deploy has not run"
    return "deployed" if told["deployed"] else f"not deployed: {told['reason']}"


def _provider(report: Mapping[str, Any], provider: str) -> Row | None:
    """A provider's figures in milliseconds, or the ``error`` it ended with."""
    figures = report.get("providers", {}).get(provider)
    if figures is None:
        return None
    if "error" in figures:
        return {"error": figures["error"], "software": False}
    parts = {part: figures[part] for part in ("encoder", "decoder") if part in figures}
    return {
        **{f"{part}_{key}": value for part, each in parts.items() for key, value in each.items()},
        "error": None,
        "mask_iou": figures["mask_iou"],
        "software": bool((figures.get("adapter") or {}).get("software")),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found


def _pictures(config: Configuration, model: Model) -> dict[str, str]:
    """Each variant's picture of masks, in base64."""
    paths = {each.name: fidelity.picture_path(config, model, each) for each in model.variants}
    return {
        name: base64.b64encode(path.read_bytes()).decode()
        for name, path in paths.items()
        if path.is_file()
    }


def milliseconds(value: float | None) -> str:
    """A time for people."""
    if value is None:
        return "–"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"


# What is compared between two reports: a name, how to read it of a row, and the relative change
# from which on it is told. Times of one machine differ by some ten percent from run to run.
COMPARED = (
    ("size", ("size",), 0.0),
    ("mean mask IoU", ("fidelity", "mask_iou", "mean"), 1e-3),
    ("worst mask IoU", ("fidelity", "mask_iou", "worst"), 1e-2),
    ("native encoder, ms", ("native", "encoder_run_ms"), 0.15),
    ("WASM encoder, ms", ("wasm", "encoder_run_ms"), 0.15),
    ("WASM decoder, ms", ("wasm", "decoder_run_ms"), 0.15),
    ("state", ("state",), 0.0),
)


def changes(before: Sequence[Row], now: Sequence[Row]) -> list[str]:
    """What differs between two reports' models, a line each; pure."""
    old, new = _by_name(before), _by_name(now)
    lines = [f"{name}: new" for name in new if name not in old]
    lines += [f"{name}: no longer there" for name in old if name not in new]
    for name in new:
        if name not in old:
            continue
        for what, path, least in COMPARED:
            was, is_now = _at(old[name], path), _at(new[name], path)
            if was != is_now and not _is_near(was, is_now, least):
                lines.append(f"{name}: {what} was {was}, is {is_now}")
    return lines


def _by_name(models: Sequence[Row]) -> dict[str, Row]:
    return {f"{model['name']} {row['name']}": row for model in models for row in model["variants"]}


def _at(row: Row, path: Sequence[str]) -> Any:
    found: Any = row
    for key in path:
        found = (found or {}).get(key)
    return found


def _is_near(one: Any, other: Any, least: float) -> bool:
    if not isinstance(one, int | float) or not isinstance(other, int | float):
        return False
    return abs(one - other) <= least * max(abs(one), abs(other))


def charts_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Where the marks of both charts are, in pixels of a 640 × 300 drawing; pure.

    ``fidelity``: points of size against the distance of the mean IoU from 1, which is logarithmic
    and better further up. ``times``: bars of the encoder's time, WASM and native.
    """
    left, bottom, width, height = 70, 250, 540, 220
    points = []
    measured = [row for row in rows if row["fidelity"]]
    if measured:
        largest = max(row["size"] for row in measured) * 1.1
        for row in measured:
            loss = max(1e-5, 1 - row["fidelity"]["mask_iou"]["mean"])
            points.append(
                {
                    "name": row["name"],
                    "x": round(left + width * row["size"] / largest, 1),
                    "y": round(bottom - height * -math.log10(loss) / 5, 1),
                    "passed": row["state"] == "deployed",
                }
            )
    # Names beside points that lie close are moved apart.
    for index, point in enumerate(sorted(points, key=lambda each: each["y"])):
        point["label_y"] = point["y"] + 4
        for other in sorted(points, key=lambda each: each["y"])[:index]:
            near = abs(other["x"] - point["x"]) < 70 and point["label_y"] - other["label_y"] < 13
            if near:
                point["label_y"] = other["label_y"] + 13
    ticks = [
        {
            "y": round(bottom - height * power / 5, 1),
            "name": f"{1 - 10.0**-power:.{max(1, power)}f}",
        }
        for power in range(1, 6)
    ]
    bars = []
    timed = [row for row in rows if row["native"] or _at(row, ("wasm", "encoder_run_ms"))]
    longest = max((value for row in timed for value in _times(row).values() if value), default=1.0)
    for index, row in enumerate(timed):
        for place, (kind, value) in enumerate(_times(row).items()):
            if value:
                bars.append(
                    {
                        "kind": kind,
                        "y": 30 * index + 13 * place,
                        "width": round(400 * value / longest, 1),
                        "text": milliseconds(value),
                        "name": row["name"] if place == 0 else "",
                    }
                )
    return {
        "points": points,
        "ticks": ticks,
        "largest": mebibytes(int(largest)) if measured else "",
        "bars": bars,
        "bars_height": 30 * len(timed) + 10,
    }


def _times(row: Row) -> dict[str, float | None]:
    return {
        "WASM": _at(row, ("wasm", "encoder_run_ms")),
        "native": _at(row, ("native", "encoder_run_ms")),
    }
