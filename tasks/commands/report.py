"""`doit report`: what the stages measured, on one HTML page, and in Markdown for a pull request.

Read from the stages' reports of every model that was built, so it reruns only when one of them
changed; its dates are those of the measurements. Targets in ``<build>/report``: ``report.html``
(self-contained), ``report.md`` and ``report.json``, which the next report compares itself with.
Times are those of `doit speed` alone, which takes them of all variants in one run.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tasks.building import state
from tasks.building.build import FROM_CACHE
from tasks.building.stage import Stage, Workspace
from tasks.config.models import FP32, GRAPHS, Target, Variant
from tasks.config.schema import Configuration
from tasks.console.sizes import mebibytes
from tasks.inference.metrics import written
from tasks.proof import charts, recommendation, reports, runtimes
from tasks.proof.judgement import ONE_CLICK, largest_differences, rules_of
from tasks.proof.recommendation import PROVIDERS, Candidate
from tasks.system.files import write_atomically
from tasks.system.fingerprint import FINGERPRINTS, hashes_of, read_cache

if TYPE_CHECKING:
    pass

TEMPLATES = Path("tasks/templates")
STAGES = (
    *("export", "simplify", "verify", "reference", "variant", "fidelity"),
    *("tracking_reference", "tracking", "browser"),
)

Row = dict[str, Any]


def folder(config: Configuration) -> Path:
    """Where the report is written."""
    return config.build / "report"


def declare(config: Configuration) -> Stage:
    """The report; built with other tasks, it waits for them."""
    return Stage(
        None,
        write,
        [config],
        reads=[TEMPLATES / "report.html", TEMPLATES / "report.md"],
        writes=[folder(config) / f"report.{kind}" for kind in ("html", "md", "json")],
        # Which reports exist is known only when the stages before this one have run.
        inputs=lambda: hashes_of(sources_of(config)),
        runs_last=True,
    )


def sources_of(config: Configuration) -> list[Path]:
    """Every file that a report may be made of."""
    paths: list[Path] = []
    for target in config.targets:
        paths += [
            target.report("verify"),
            target.speeds,
            target.manifest,
        ]
        for each in target.built_variants:
            paths += [
                target.report("browser", each),
                target.report("fidelity", each),
                target.report("tracking", each),
                target.picture(each),
            ]
    return paths


def write(config: Configuration, work: Workspace) -> dict[str, Any]:
    """Gather, compare with the report before, and write all three files."""
    import jinja2

    gathered = [gather(config, target) for target in config.targets]
    models = [each for each in gathered if each is not None]
    path = folder(config) / "report.json"
    data: dict[str, Any] = {
        "models": models,
        "ranking": ranking(models),
        "best": best(models),
        "changes": since(read_cache(path), models),
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: bool(name and name.endswith(".html")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"mebibytes": mebibytes, "milliseconds": milliseconds, "spread": spread}
    environment.filters |= {"median": median, "ends": ends_in_words, "written": written}
    pictures = {
        target.name: _pictures(target, told["variants"])
        for target, told in zip(config.targets, gathered, strict=True)
        if told is not None
    }
    drawn = {model["name"]: charts_of(model["variants"]) for model in models}
    drift = {model["name"]: drift_of(model["variants"]) for model in models}
    for kind in ("html", "md"):
        text = environment.get_template(f"report.{kind}").render(
            **data,
            pictures=pictures,
            charts=drawn,
            drift=drift,
            providers=PROVIDERS,
            config=config.path,
        )
        write_atomically(folder(config) / f"report.{kind}", text)
    write_atomically(path, json.dumps(data, indent=2) + "\n")
    if not models:
        return {"summary": f"no model is built yet; {folder(config) / 'report.html'} says so"}
    rows = sum(len(model["variants"]) for model in models)
    return {
        "summary": f"{rows} variants of {len(models)} models in {folder(config) / 'report.html'}"
    }


def since(previous: Mapping[str, Any], models: Sequence[Row]) -> list[str]:
    """What changed since the report before; nothing where that is no report."""
    try:
        if previous["models"] == models:
            return [str(line) for line in previous["changes"]]
        return changes(previous["models"], models)
    except (KeyError, TypeError, AttributeError):
        return []


def gather(config: Configuration, target: Target) -> dict[str, Any] | None:
    """Everything that is told of one model; None when it is not verified yet."""
    verified = reports.read(target.report("verify"))
    if verified is None:
        return None
    records = state.recorded_values(config.build / "state" / "doit.json")
    own = {
        name: values
        for name, values in records.items()
        if name.split(":")[1:2] in ([target.name], [target.source.name])
    }
    manifest = read_cache(target.manifest)
    told = manifest.get("variants")
    entries = {
        each["name"]: each
        for each in (told if isinstance(told, list) else [])
        if isinstance(each, dict) and "deployed" in each
    }
    speed = current_speeds(target)
    rows = [
        row(target, each, own, entries.get(each.name), speed)
        for each in target.built_variants
        if all(path.is_file() for path in target.image_graphs(each).values())
    ]
    prefer = manifest.get("prefer")
    return {
        "name": target.name,
        "architecture": verified.get("architecture", target.source.architecture),
        "deploy": str(target.deploy),
        "checkpoint": verified["against"].get("checkpoint"),
        "parity": largest_differences(verified["differences"]),
        "tolerances": asdict(config.checks.verify),
        "truth": verified["truth"],
        "truth_source": target.source.truth,
        "truth_iou": target.source.truth_iou,
        "client": target.client.name,
        "placement": verified.get("placement"),
        "native": verified.get("native"),
        "packages": manifest.get("packages", {}),
        "recommended": recommended(rows, prefer if isinstance(prefer, dict) else {}),
        "columns": columns(rows),
        "from_cache": sorted(name for name, values in own.items() if values.get(FROM_CACHE)),
        "memory": {stage: peak for stage in STAGES if (peak := max(_peaks(own, stage), default=0))},
        "speed": {key: speed.get(key) for key in ("machine", "date", "rounds")} if speed else None,
        "variants": rows,
    }


def candidates(rows: Sequence[Row]) -> list[Candidate]:
    """What of a model's variants is deployed."""
    return [
        Candidate(row["name"], row["size"], frozenset(row["proven"]), encoder_times(row))
        for row in rows
        if row["state"] == "deployed"
    ]


def best(models: Sequence[Row]) -> list[dict[str, Any]]:
    """Which of several models to load on each provider, and why; pure.

    True masks compare models only where all of them have drawn the same.
    """
    drawn = {model["truth_source"] for model in models}
    found = {}
    for model in models:
        truth = model["truth"]["iou"][ONE_CLICK] if len(drawn) == 1 and model["truth"] else None
        alike = _at(model, ("native", "mask_iou", "mean"))
        by_name = {
            each.name: each._replace(truth=truth, alike=1.0 if alike is None else alike)
            for each in candidates(model["variants"])
        }
        found[model["name"]] = {
            each["provider"]: by_name[each["variant"]] for each in model["recommended"]
        }
    if len(found) < 2:
        return []
    return [each._asdict() for each in recommendation.recommend_model(found)]


def ranking(models: Sequence[Row]) -> list[Row]:
    """Every deployed variant of every model, the fastest on WASM first; pure.

    ``like_pytorch`` is the mean IoU of its masks with PyTorch's, of the same weights at the size
    they were trained on. ``bars`` are shares of the largest in the column.
    """
    rows = []
    chosen = best(models)
    for model in models:
        native = _at(model, ("native", "mask_iou", "mean"))
        for row in model["variants"]:
            if row["state"] == "deployed":
                figures = [native, _at(row, ("fidelity", "mask_iou", "mean"))]
                rows.append(
                    {
                        "model": model["name"],
                        "variant": row["name"],
                        "wasm": encoder_times(row).get("wasm"),
                        "size": row["size"],
                        "like_pytorch": min(each for each in (*figures, 1.0) if each is not None),
                        "truth": _at(model, ("truth", "iou", ONE_CLICK)),
                        "recommended": [
                            each["provider"]
                            for each in chosen
                            if each["variant"] == f"{model['name']}, {row['name']}"
                        ],
                    }
                )
    rows.sort(key=lambda row: (row["wasm"] is None, row["wasm"] or 0.0, row["size"]))
    for row in rows:
        row["apart"] = 1 - row["like_pytorch"]
    columns = ("wasm", "size", "apart")
    largest = {key: max((row[key] or 0 for row in rows), default=0) for key in columns}
    for row in rows:
        row["bars"] = {key: (row[key] or 0) / (most or 1) for key, most in largest.items()}
    return rows


def columns(rows: Sequence[Row]) -> dict[str, bool]:
    """What at least one variant has a figure of, and so has a column; pure."""
    timed = {
        provider: any(_at(row, ("times", provider, "encoder_run_ms")) for row in rows)
        for provider in PROVIDERS
    }
    others = {
        "fidelity": ("fidelity",),
        "nodes": ("nodes",),
        "webgpu_nodes": ("browser", "webgpu", "nodes"),
        "page_memory": ("page_memory",),
    }
    return {**timed, **{key: any(_at(row, path) for row in rows) for key, path in others.items()}}


def recommended(rows: Sequence[Row], prefer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The variant to load on each provider, and why; pure."""
    return [each._asdict() for each in recommendation.recommend(candidates(rows), prefer)]


def current_speeds(target: Target) -> dict[str, Any]:
    """The times of a model's variants, if they are those of the files that are there now."""
    speed = read_cache(target.speeds)
    files = speed.get("files")
    if not isinstance(files, dict):
        return {}
    return speed if files == _hashes(target, files) else {}


def _hashes(target: Target, names: Mapping[str, Any]) -> dict[str, str]:
    paths = [
        path
        for each in target.built_variants
        for path in target.image_graphs(each).values()
        if path.name in names
    ]
    return {path.name: FINGERPRINTS.sha256(path) for path in paths if path.is_file()}


def _peaks(records: Mapping[str, Mapping[str, Any]], stage: str) -> list[int]:
    return [
        values["peak_memory"]
        for name, values in records.items()
        if name.split(":")[0] == stage and values.get("peak_memory")
    ]


def row(
    target: Target,
    variant: Variant,
    records: Mapping[str, Mapping[str, Any]],
    told: Mapping[str, Any] | None,
    speed: Mapping[str, Any],
) -> Row:
    """What is told of one variant; None where it was not measured."""
    graphs = target.image_graphs(variant)
    sizes = [path.stat().st_size for path in graphs.values()]
    base = [path.stat().st_size for path in target.image_graphs().values()]
    measured = reports.read(target.report("fidelity", variant))
    seen = reports.read(target.report("browser", variant)) or {}
    times = speed.get("variants", {}).get(variant.name, {})
    return {
        "name": variant.name,
        "files": {path.name: FINGERPRINTS.sha256(path) for path in graphs.values()},
        "needs": runtimes.newest(
            runtimes.needs(target.source.opset, variant.precision, path.name)["onnxruntime"]
            for path in graphs.values()
        ),
        "sizes": sizes,
        "size": sum(sizes),
        "share": round(sum(sizes) / sum(base), 4),
        "nodes": _node_counts(target, variant, records),
        "fidelity": measured and {key: measured.get(key) for key in FIDELITY},
        "gates": rules_of(target, variant, "fidelity") if measured else None,
        "times": {provider: times.get(provider) for provider in ("native", "wasm", "webgpu")},
        "browser": {provider: _provider(seen, provider, told) for provider in ("wasm", "webgpu")},
        "page_memory": seen.get("memory", {}).get("renderer"),
        "tracking": _tracking(target, variant),
        "proven": _proven(told),
        "unproven": _unproven(told),
        "state": _state(told),
    }


def _node_counts(
    target: Target,
    variant: Variant,
    records: Mapping[str, Mapping[str, Any]],
) -> list[int] | None:
    """How many nodes each graph has; None where its stage has not run."""
    told: dict[str, int] = {}
    source = target.source
    for each in dict.fromkeys([variant.as_onnx, variant]):
        task = f"variant:{source.name}:{each.name}" if each != FP32 else f"simplify:{source.name}"
        counts = records.get(task, {}).get("nodes", [])
        if each == FP32:
            counts = [after for _, after in counts]
        told |= dict(zip(target.source.shared_graphs(each), counts, strict=False))
    names = [target.shared_name(graph) for graph in GRAPHS]
    return [told[name] for name in names] if told.keys() >= set(names) else None


FIDELITY = (
    *("images", "prompts", "mask_iou", "ranking_flips"),
    *("logit_error", "input_error", "score_error", "lowest"),
)


def _tracking(target: Target, variant: Variant) -> Row | None:
    """How objects were followed through frames, and what the graphs for it weigh."""
    measured = reports.read(target.report("tracking", variant))
    if measured is None or not measured.get("answers"):
        return None
    graphs = target.source.tracking_files(variant).values()
    keys = ("answers", "mask_iou", "score_error", "occlusion_flips", "rules")
    return {
        **{key: measured[key] for key in keys},
        "size": sum(path.stat().st_size for path in graphs if path.is_file()),
        "clips": {each["name"]: followed(each["by_frame"]) for each in measured["clips"]},
    }


def followed(by_frame: Sequence[Row]) -> list[float]:
    """The IoU of each frame that was tracked, in that order; prompts are left out. Pure.

    A mask that was not made of numbers agrees in nothing.
    """
    frames: dict[int, list[float]] = {}
    for each in by_frame:
        frames.setdefault(each["step"], []).append(each["iou"] or 0.0)
    return [iou for step in frames.values() if len(step) > 1 for iou in step]


def _proven(told: Mapping[str, Any] | None) -> list[str]:
    """The providers on which a variant may be loaded; natively whatever is deployed."""
    if told is None or not told["deployed"]:
        return []
    providers = (told.get("browser") or {}).get("providers", {})
    return ["native", *(name for name, proof in providers.items() if proof.get("proven"))]


def _unproven(told: Mapping[str, Any] | None) -> list[str]:
    """The providers on which a deployed variant was tried and not proven."""
    if told is None or not told["deployed"]:
        return []
    providers = (told.get("browser") or {}).get("providers", {})
    return [PROVIDERS[name] for name, proof in providers.items() if not proof.get("proven")]


def _state(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return "not deployed: not asked for, or its deploy has not run"
    return "deployed" if told["deployed"] else f"not deployed: {told['reason']}"


def _provider(
    report: Mapping[str, Any], provider: str, told: Mapping[str, Any] | None
) -> Row | None:
    """What the browser's proof says of a provider."""
    figures = report.get("providers", {}).get(provider)
    if figures is None:
        return None
    refused = figures.get("refused", {}).get("words") or figures.get("unavailable")
    proven = ((told or {}).get("browser") or {}).get("providers", {}).get(provider, {})
    return {
        "error": refused,
        "mask_iou": figures.get("mask_iou"),
        "least": report.get("rules", {}).get("mask_iou"),
        "software": bool((figures.get("adapter") or {}).get("software")),
        "nodes": _nodes(figures.get("placement") or {}),
        "not_proven": proven.get("reason"),
    }


def _nodes(placement: Mapping[str, Any]) -> dict[str, int] | None:
    """How many nodes of all graphs are on WebGPU and on the CPU; None where it is not known."""
    if not placement or any(each is None for each in placement.values()):
        return None
    return {key: sum(each[key] for each in placement.values()) for key in ("webgpu", "cpu")}


def _pictures(target: Target, rows: Sequence[Row]) -> dict[str, str]:
    """The picture of each variant that has a mask unlike PyTorch's, in base64."""
    paths = {
        each.name: target.picture(each)
        for each in target.variants
        if any(row["name"] == each.name and differs(row) for row in rows)
    }
    return {
        name: base64.b64encode(path.read_bytes()).decode()
        for name, path in paths.items()
        if path.is_file()
    }


def differs(row: Row) -> bool:
    """Whether there is something to see where a variant is furthest from PyTorch."""
    return bool(_at(row, ("fidelity", "lowest", "pixels")))


def milliseconds(value: float | None) -> str:
    """A time for people."""
    if value is None:
        return "–"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def spread(times: Sequence[float] | None) -> str:
    """The median of several times, and the least and the most of them."""
    if not times:
        return "–"
    if len(times) == 1:
        return milliseconds(times[0])
    return f"{milliseconds(median(times))} ({ends_in_words(times)})"


def ends_in_words(times: Sequence[float]) -> str:
    """The least and the most of several times, for people: both in the unit of the longer."""
    least, most = ends(times)
    shortest = f"{least:.0f}" if most < 1000 else f"{least / 1000:.2f}"
    return f"{shortest} to {milliseconds(most)}"


# What is compared between two reports: a name, how to read it of a row, and the relative change
# from which on it is told. Times are not: they were taken in different runs.
COMPARED = (
    ("size", ("size",), 0.0),
    ("mean mask IoU", ("fidelity", "mask_iou", "mean"), 1e-3),
    ("worst mask IoU", ("fidelity", "mask_iou", "worst"), 1e-2),
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
                shown = (mebibytes(each) if what == "size" else each for each in (was, is_now))
                lines.append("{}: {} was {}, is {}".format(name, what, *shown))
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


def charts_of(rows: Sequence[Row]) -> list[charts.Chart]:
    """Bars of what a person chooses by, each where at least one variant has a figure; pure."""
    shown = {
        "Download": [charts.Value(row["name"], row["size"], mebibytes(row["size"])) for row in rows]
    }
    for provider, name in PROVIDERS.items():
        shown[f"Time for an image, {name}"] = [
            charts.Value(row["name"], median(times), milliseconds(median(times)), *ends(times))
            for row in rows
            if (times := _at(row, ("times", provider, "encoder_run_ms")))
        ]
    shown["Mean IoU short of 1"] = [
        charts.Value(row["name"], 1 - mean, f"{1 - mean:.4f}")
        for row in rows
        if (mean := _at(row, ("fidelity", "mask_iou", "mean"))) is not None
    ]
    return [charts.chart(title, values) for title, values in shown.items() if values]


def drift_of(rows: Sequence[Row]) -> list[charts.LineChart]:
    """For each clip a line of every variant: how its masks part from PyTorch's; pure."""
    series: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for clip, ious in (_at(row, ("tracking", "clips")) or {}).items():
            series.setdefault(clip, {})[row["name"]] = ious
    return [charts.line_chart(clip, lines) for clip, lines in series.items()]


def ends(times: Sequence[float]) -> tuple[float, float]:
    """The least and the most."""
    return min(times), max(times)


def encoder_times(row: Row) -> dict[str, float]:
    """The medians of the encoder's times in milliseconds, by provider."""
    found = {name: _at(row, ("times", name, "encoder_run_ms")) for name in PROVIDERS}
    return {name: median(times) for name, times in found.items() if times}
