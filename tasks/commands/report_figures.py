"""The figures of `doit report`: read of the stages' reports, compared, and drawn.

Times are those of `doit speed` alone, which takes them of all variants in one run. None stands for
what was not measured. Figures that a stage measured are as its report has them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tasks.building import state
from tasks.building.build import FROM_CACHE
from tasks.config.models import Target, Variant
from tasks.config.schema import Configuration
from tasks.console.sizes import mebibytes
from tasks.inference.checks import Figure
from tasks.proof import charts, recommendation, reports, runtimes
from tasks.proof.failures import PROVIDERS
from tasks.proof.judgement import ONE_CLICK, largest_differences, limits_of, rules_of
from tasks.proof.manifest import VariantEntry, read_manifest
from tasks.proof.recommendation import Candidate, Choice
from tasks.proof.reports import Report
from tasks.system.fingerprint import FINGERPRINTS, read_cache


@dataclass(frozen=True)
class ProviderFigures:
    """What a provider of the browser did; ``nodes`` of all graphs, by where they run."""

    error: str | None
    mask_iou: float | None
    least: float | None
    software: bool
    nodes: Mapping[str, int] | None
    not_proven: str | None


@dataclass(frozen=True)
class VariantFigures:
    """A variant that was built; ``entry`` is that of the manifest, if there is one.

    ``files`` have their SHA-256; ``sizes`` are in bytes, as is ``tracking_size`` of the graphs that
    track; ``gates`` are the limits of its ``fidelity``; ``times`` are by provider; ``picture`` is a
    PNG in base64.
    """

    name: str
    files: Mapping[str, str]
    sizes: Sequence[int]
    needs: str = ""
    share: float = 1.0
    entry: VariantEntry | None = None
    fidelity: Report | None = None
    gates: Mapping[str, Any] | None = None
    times: Mapping[str, Report] = field(default_factory=dict)
    browser: Mapping[str, ProviderFigures] = field(default_factory=dict)
    page_memory: int | None = None
    tracking: Report | None = None
    tracking_size: int = 0
    picture: str | None = None

    @property
    def size(self) -> int:
        """The bytes to download for segmenting images."""
        return sum(self.sizes)

    @property
    def deployed(self) -> bool:
        """Whether its files are deployed."""
        return self.entry is not None and self.entry.deployed

    @property
    def state(self) -> str:
        """Whether it is deployed, or why not."""
        if self.entry is None:
            return "not deployed: not asked for, or its deploy has not run"
        return "deployed" if self.entry.deployed else f"not deployed: {self.entry.reason}"

    @property
    def unproven(self) -> list[str]:
        """The providers on which it is deployed, was tried, and is not proven."""
        if self.entry is None or not self.entry.deployed or self.entry.browser is None:
            return []
        tried = self.entry.browser.providers
        return [PROVIDERS[name] for name, proof in tried.items() if not proof.proven]

    @property
    def mean_iou(self) -> float | None:
        """The mean IoU of its masks with PyTorch's."""
        return self.fidelity["mask_iou"]["mean"] if self.fidelity else None

    def encoder_times(self, provider: str) -> list[float]:
        """The times for an image in milliseconds; empty where it was not timed."""
        return list(self.times.get(provider, {}).get("encoder_run_ms") or [])

    def candidate(self) -> Candidate:
        """It among those of which one is recommended."""
        times = {name: median(each) for name in PROVIDERS if (each := self.encoder_times(name))}
        proven = self.entry.proven_on if self.entry else []
        return Candidate(self.name, self.size, frozenset(proven), times)


@dataclass(frozen=True)
class ModelFigures:
    """A model that was verified; ``truth_source`` is the function that draws its true masks."""

    name: str
    variants: Sequence[VariantFigures]
    architecture: str = ""
    deploy: str = ""
    checkpoint: str | None = None
    client: str = ""
    parity: Mapping[str, Figure] = field(default_factory=dict)
    tolerances: Mapping[str, float | None] = field(default_factory=dict)
    truth: Report | None = None
    truth_source: str | None = None
    truth_iou: float = 0.0
    placement: Report | None = None
    native: Report | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    from_cache: Sequence[str] = ()
    speed: Report | None = None

    @property
    def candidates(self) -> list[Candidate]:
        """The variants that are deployed, with the figures of the model."""
        truth = self.truth["iou"].get(ONE_CLICK) if self.truth else None
        native_iou = self.native["mask_iou"]["mean"] if self.native else 1.0
        return [
            each.candidate()._replace(truth=truth, native_iou=native_iou)
            for each in self.variants
            if each.deployed
        ]

    @property
    def recommended(self) -> dict[str, Choice]:
        """The variant to load on each provider, and why."""
        return recommendation.recommend(self.candidates)

    @property
    def columns(self) -> set[str]:
        """What at least one variant has a figure of, and so has a column."""
        shown = {
            **{name: any(each.encoder_times(name) for each in self.variants) for name in PROVIDERS},
            "fidelity": any(each.fidelity for each in self.variants),
            "webgpu_nodes": any(
                each.browser["webgpu"].nodes for each in self.variants if "webgpu" in each.browser
            ),
            "page_memory": any(each.page_memory for each in self.variants),
        }
        return {name for name, has_figure in shown.items() if has_figure}


@dataclass(frozen=True)
class Ranked:
    """A deployed variant among those of all models.

    ``wasm`` is the time for an image in milliseconds; ``like_pytorch`` the mean IoU with PyTorch's
    masks, of the same weights at the size they were trained on.
    """

    model: str
    variant: str
    wasm: float | None
    size: int
    like_pytorch: float
    truth: float | None
    recommended: Sequence[str]


def gather(config: Configuration, target: Target) -> ModelFigures | None:
    """The figures of one model; None when it is not verified yet."""
    verified = reports.read(target.report("verify"))
    if verified is None:
        return None
    records = state.recorded_values(config.build / "state" / "doit.json")
    manifest = read_manifest(target.manifest)
    entries = {each.name: each for each in manifest.variants} if manifest else {}
    speed = current_speeds(target)
    variants = [
        variant_figures(target, each, entries.get(each.name), speed)
        for each in target.built_variants
        if all(path.is_file() for path in target.image_graphs(each).values())
    ]
    return ModelFigures(
        name=target.name,
        variants=variants,
        architecture=verified.get("architecture", target.source.architecture),
        deploy=str(target.deploy),
        checkpoint=verified["against"].get("checkpoint"),
        client=target.client.name,
        parity=largest_differences(verified["differences"]),
        tolerances=limits_of(config.checks.verify),
        truth=verified["truth"],
        truth_source=target.source.truth,
        truth_iou=target.source.truth_iou,
        placement=verified.get("placement"),
        native=verified.get("native"),
        packages=manifest.packages if manifest else {},
        from_cache=sorted(
            name
            for name, values in records.items()
            if name.split(":")[1:2] in ([target.name], [target.source.name])
            and values.get(FROM_CACHE)
        ),
        speed=speed or None,
    )


def current_speeds(target: Target) -> Report:
    """The times of a model's variants, if they are those of the files that are there now."""
    speed = read_cache(target.speeds)
    timed = speed.get("files")
    if not isinstance(timed, dict):
        return {}
    paths = [
        path
        for each in target.built_variants
        for path in target.image_graphs(each).values()
        if path.name in timed
    ]
    there = {path.name: FINGERPRINTS.sha256(path) for path in paths if path.is_file()}
    return speed if timed == there else {}


def variant_figures(
    target: Target,
    variant: Variant,
    entry: VariantEntry | None,
    speed: Report,
) -> VariantFigures:
    """The figures of one variant."""
    graphs = target.image_graphs(variant)
    sizes = [path.stat().st_size for path in graphs.values()]
    base = [path.stat().st_size for path in target.image_graphs().values()]
    fidelity = reports.read(target.report("fidelity", variant))
    browser = reports.read(target.report("browser", variant)) or {}
    picture = target.picture(variant)
    tracking = reports.read(target.report("tracking", variant))
    trackers = target.source.tracking_files(variant).values()
    return VariantFigures(
        name=variant.name,
        files={path.name: FINGERPRINTS.sha256(path) for path in graphs.values()},
        sizes=sizes,
        needs=runtimes.newest(
            runtimes.needs(target.source.opset, variant.precision, path.name)["onnxruntime"]
            for path in graphs.values()
        ),
        share=round(sum(sizes) / sum(base), 4),
        entry=entry,
        fidelity=fidelity,
        gates=rules_of(target, variant, "fidelity") if fidelity else None,
        times=speed.get("variants", {}).get(variant.name, {}),
        browser=_provider_figures(browser, entry),
        page_memory=browser.get("memory", {}).get("renderer"),
        tracking=tracking if tracking and tracking.get("answers") else None,
        tracking_size=sum(path.stat().st_size for path in trackers if path.is_file()),
        picture=base64.b64encode(picture.read_bytes()).decode()
        if differs(fidelity) and picture.is_file()
        else None,
    )


def differs(fidelity: Report | None) -> bool:
    """Whether there is something to see where a variant is furthest from PyTorch."""
    return bool(fidelity and (fidelity.get("lowest") or {}).get("pixels"))


def tracked_ious(by_frame: Sequence[Report]) -> list[float]:
    """The IoU of each frame that was tracked, in that order; prompts are left out. Pure.

    A mask that was not made of numbers agrees in nothing.
    """
    frames: dict[int, list[float]] = {}
    for each in by_frame:
        frames.setdefault(each["step"], []).append(each["iou"] or 0.0)
    return [iou for step in frames.values() if len(step) > 1 for iou in step]


def _provider_figures(report: Report, entry: VariantEntry | None) -> dict[str, ProviderFigures]:
    """What the browser's proof and the manifest say of each provider."""
    proofs = entry.browser.providers if entry and entry.browser else {}
    by_name = {str(name): proof for name, proof in proofs.items()}
    return {
        name: ProviderFigures(
            error=figures.get("refused", {}).get("words") or figures.get("unavailable"),
            mask_iou=figures.get("mask_iou"),
            least=report.get("rules", {}).get("mask_iou"),
            software=bool((figures.get("adapter") or {}).get("software")),
            nodes=_nodes(figures.get("placement") or {}),
            not_proven=by_name[name].reason if name in by_name else None,
        )
        for name, figures in report.get("providers", {}).items()
    }


def _nodes(placement: Mapping[str, Report | None]) -> dict[str, int] | None:
    """How many nodes of all graphs are on WebGPU and on the CPU; None where one has no record."""
    graphs = [each for each in placement.values() if each is not None]
    if not placement or len(graphs) < len(placement):
        return None
    return {key: sum(each[key] for each in graphs) for key in ("webgpu", "cpu")}


def best(models: Sequence[ModelFigures]) -> dict[str, Choice]:
    """Which of several models to load on each provider, and why; pure.

    True masks compare models only where all of them have drawn the same.
    """
    same_truth = len({model.truth_source for model in models}) == 1
    by_model = {
        model.name: [each if same_truth else each._replace(truth=None) for each in model.candidates]
        for model in models
    }
    return recommendation.recommend_model(by_model) if len(models) > 1 else {}


def ranking(models: Sequence[ModelFigures]) -> list[Ranked]:
    """Every deployed variant of every model, the fastest on WASM first; pure."""
    chosen = best(models)
    rows = []
    for model in models:
        for each in model.candidates:
            mean = next(row.mean_iou for row in model.variants if row.name == each.name)
            name = f"{model.name}, {each.name}"
            rows.append(
                Ranked(
                    model=model.name,
                    variant=each.name,
                    wasm=each.times.get("wasm"),
                    size=each.size,
                    like_pytorch=min(each.native_iou, 1.0 if mean is None else mean),
                    truth=each.truth,
                    recommended=[
                        p for p, choice in chosen.items() if choice.candidate.name == name
                    ],
                )
            )
    return sorted(rows, key=lambda row: (row.wasm is None, row.wasm or 0.0, row.size))


def charts_of(rows: Sequence[VariantFigures]) -> list[charts.Chart]:
    """Bars of what a person chooses by, each where at least one variant has a figure; pure."""
    shown = {"Download": [charts.Value(row.name, row.size, mebibytes(row.size)) for row in rows]}
    for provider, name in PROVIDERS.items():
        shown[f"Time for an image, {name}"] = [
            charts.Value(row.name, median(times), milliseconds(median(times)), *ends(times))
            for row in rows
            if (times := row.encoder_times(provider))
        ]
    shown["Mean IoU short of 1"] = [
        charts.Value(row.name, 1 - row.mean_iou, f"{1 - row.mean_iou:.4f}")
        for row in rows
        if row.mean_iou is not None
    ]
    return [charts.chart(title, values) for title, values in shown.items() if values]


def drift_of(rows: Sequence[VariantFigures]) -> list[charts.LineChart]:
    """For each clip a line of every variant: how its masks part from PyTorch's; pure."""
    series: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for clip in row.tracking["clips"] if row.tracking else ():
            series.setdefault(clip["name"], {})[row.name] = tracked_ious(clip["by_frame"])
    return [charts.line_chart(clip, lines) for clip, lines in series.items()]


def milliseconds(value: float | None) -> str:
    """A time for people."""
    if value is None:
        return "–"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def spread(times: Sequence[float]) -> str:
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


def ends(times: Sequence[float]) -> tuple[float, float]:
    """The least and the most."""
    return min(times), max(times)
