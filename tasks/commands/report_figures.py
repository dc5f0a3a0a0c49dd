"""The figures of `doit report`: read from the stages' reports, compared, and drawn.

Times come only from `doit speed`, which measures all variants in one run. None stands for a missing
measurement. A stage's figures are unchanged from its report.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from tasks.building import state
from tasks.building.build import FROM_CACHE
from tasks.config.models import Target, Variant
from tasks.config.schema import Configuration
from tasks.console.sizes import mebibytes
from tasks.inference.checks import Figure
from tasks.proof import charts, recommendation, reports, runtimes
from tasks.proof.failures import PROVIDERS
from tasks.proof.judgement import ONE_CLICK, largest_differences
from tasks.proof.manifest import VariantEntry, read_manifest
from tasks.proof.paths import PathFigures
from tasks.proof.recommendation import Candidate, Choice
from tasks.proof.reports import Report
from tasks.system.fingerprint import FINGERPRINTS, read_cache


@dataclass(frozen=True)
class VariantFigures:
    """A built variant; ``entry`` is its entry in the manifest, if there is one.

    ``files`` maps names to SHA-256 hashes; ``sizes`` and ``tracking_size`` (of the tracking graphs)
    are in bytes; ``times`` are by provider; ``picture`` is a PNG in base64.
    """

    name: str
    files: Mapping[str, str]
    sizes: Sequence[int]
    needs: str = ""
    entry: VariantEntry | None = None
    fidelity: Report | None = None
    browser: Report = field(default_factory=dict)
    tracking: Report | None = None
    times: Mapping[str, Report] = field(default_factory=dict)
    tracking_size: int = 0
    picture: str | None = None

    @property
    def size(self) -> int:
        """The size of the download for segmenting images, in bytes."""
        return sum(self.sizes)

    @property
    def deployed(self) -> bool:
        """Whether its files are deployed."""
        return self.entry is not None and self.entry.deployed

    @property
    def state(self) -> str:
        """Whether it is deployed, or why not."""
        if self.entry is None:
            return "not deployed: not configured, or its deploy has not run"
        return "deployed" if self.entry.deployed else f"not deployed: {self.entry.reason}"

    @property
    def unproven(self) -> list[str]:
        """The providers on which a deployed variant was tried and is not proven."""
        if self.entry is None or not self.entry.deployed or self.entry.browser is None:
            return []
        tried = self.entry.browser.providers
        return [PROVIDERS[name] for name, proof in tried.items() if not proof.proven]

    @property
    def unproven_because(self) -> dict[str, str]:
        """Why it is not proven, or what was refused, by provider of the browser."""
        proofs = self.entry.browser.providers if self.entry and self.entry.browser else {}
        reasons = {PROVIDERS[name]: each.reason for name, each in proofs.items() if each.reason}
        for name, figures in self.browser.get("providers", {}).items():
            words = figures.get("refused", {}).get("words") or figures.get("unavailable")
            if words:
                reasons[PROVIDERS[name]] = words
        return reasons

    @property
    def wasm_iou(self) -> Figure:
        """The lowest IoU of a mask on WASM with onnxruntime's."""
        iou: Figure = self.browser.get("providers", {}).get("wasm", {}).get("mask_iou")
        return iou

    @property
    def webgpu_nodes(self) -> str | None:
        """The numbers of nodes of all graphs on WebGPU and on the CPU; None if unknown."""
        figures = self.browser.get("providers", {}).get("webgpu", {})
        graphs = list(figures.get("placement", {}).values())
        if not graphs or None in graphs:
            return None
        on_webgpu, on_cpu = (sum(each[key] for each in graphs) for key in ("webgpu", "cpu"))
        return f"{on_webgpu}, {on_cpu}" + ", in software" * bool(figures["adapter"]["software"])

    @property
    def page_memory(self) -> int | None:
        """The memory of the page in the browser, in bytes."""
        memory: int | None = self.browser.get("memory", {}).get("renderer")
        return memory

    @property
    def mean_iou(self) -> float | None:
        """The mean IoU of its masks with PyTorch's."""
        return self.fidelity["mask_iou"]["mean"] if self.fidelity else None

    def encoder_times(self, provider: str) -> list[float]:
        """The times for an image in milliseconds; empty if it was not timed."""
        return list(self.times.get(provider, {}).get("encoder_run_ms") or [])

    def candidate(self) -> Candidate:
        """The variant as a candidate for the recommendation."""
        times = {name: median(each) for name in PROVIDERS if (each := self.encoder_times(name))}
        proven = self.entry.proven_on if self.entry else []
        return Candidate(self.name, self.size, frozenset(proven), times)


@dataclass(frozen=True)
class ModelFigures:
    """A verified model; ``verified`` is the report of ``verify``."""

    name: str
    variants: Sequence[VariantFigures]
    verified: Report
    deploy: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    from_cache: Sequence[str] = ()
    speed: Report = field(default_factory=dict)
    paths: Sequence[PathFigures] = ()

    @property
    def parity(self) -> dict[str, Figure]:
        """The largest differences from PyTorch."""
        return largest_differences(self.verified["differences"])

    @property
    def least_path_iou(self) -> float | None:
        """The lowest IoU of all execution paths; None if no path drew a mask."""
        ious = [each.mask_iou for each in self.paths if each.mask_iou is not None]
        return min(ious, default=None)

    @property
    def candidates(self) -> list[Candidate]:
        """The deployed variants, with the figures of the model."""
        truth, native = self.verified.get("truth"), self.verified.get("native")
        one_click = truth["iou"].get(ONE_CLICK) if truth else None
        native_iou = native["mask_iou"]["mean"] if native else 1.0
        return [
            each.candidate()._replace(truth=one_click, native_iou=native_iou)
            for each in self.variants
            if each.deployed
        ]

    @property
    def recommended(self) -> dict[str, Choice]:
        """The variant to load on each provider, and why."""
        return recommendation.recommend(self.candidates)

    @property
    def columns(self) -> set[str]:
        """The columns for which at least one variant has a figure."""
        timed = {
            provider
            for provider in PROVIDERS
            if any(each.encoder_times(provider) for each in self.variants)
        }
        figures = {
            name
            for name in ("fidelity", "wasm_iou", "webgpu_nodes", "page_memory")
            if any(getattr(each, name) is not None for each in self.variants)
        }
        return timed | figures


class Ranked(NamedTuple):
    """A deployed variant in the ranking of all models.

    ``wasm`` is the time for an image in milliseconds; ``like_pytorch`` the mean IoU with the masks
    of PyTorch with the same weights, at the image size that they were trained on.
    """

    model: str
    variant: str
    wasm: float | None
    size: int
    like_pytorch: float
    truth: float | None
    recommended: Sequence[str]


def gather(config: Configuration, target: Target) -> ModelFigures | None:
    """The figures of one model; None if it is not verified yet."""
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
        target.name,
        variants,
        verified,
        deploy=str(target.deploy),
        packages=manifest.packages if manifest else {},
        from_cache=sorted(
            name
            for name, values in records.items()
            if name.split(":")[1:2] in ([target.name], [target.source.name])
            and values.get(FROM_CACHE)
        ),
        speed=speed,
        paths=current_paths(target),
    )


def current_paths(target: Target) -> list[PathFigures]:
    """The figures of each execution path for the current files."""
    content = read_cache(target.paths)
    there = {
        path.name: FINGERPRINTS.sha256(path)
        for path in target.graph_files().values()
        if path.is_file()
    }
    if content.get("files") != there:
        return []
    return [PathFigures(**each) for each in content["paths"]]


def current_speeds(target: Target) -> Report:
    """The times of a model's variants, if they were measured with the current files."""
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
    graphs = target.image_graphs(variant).values()
    needs = [runtimes.needs(target.source.opset, variant.precision, each.name) for each in graphs]
    fidelity = reports.read(target.report("fidelity", variant))
    tracking = reports.read(target.report("tracking", variant))
    trackers = target.source.tracking_files(variant).values()
    picture = target.picture(variant)
    return VariantFigures(
        variant.name,
        files={path.name: FINGERPRINTS.sha256(path) for path in graphs},
        sizes=[path.stat().st_size for path in graphs],
        needs=runtimes.newest(each["onnxruntime"] for each in needs),
        entry=entry,
        fidelity=fidelity,
        browser=reports.read(target.report("browser", variant)) or {},
        tracking=tracking if tracking and tracking.get("answers") else None,
        times=speed.get("variants", {}).get(variant.name, {}),
        tracking_size=sum(path.stat().st_size for path in trackers if path.is_file()),
        picture=base64.b64encode(picture.read_bytes()).decode()
        if differs(fidelity) and picture.is_file()
        else None,
    )


def differs(fidelity: Report | None) -> bool:
    """Whether any pixel differs in the mask that is furthest from PyTorch's."""
    return bool(fidelity and (fidelity.get("lowest") or {}).get("pixels"))


def tracked_ious(by_frame: Sequence[Report]) -> list[float]:
    """The IoU of each tracked frame, in tracking order; answers to prompts are left out. Pure.

    A mask whose logits are not numbers has the IoU 0.
    """
    frames: dict[int, list[float]] = {}
    for each in by_frame:
        frames.setdefault(each["step"], []).append(each["iou"] or 0.0)
    return [iou for step in frames.values() if len(step) > 1 for iou in step]


def best(models: Sequence[ModelFigures]) -> dict[str, Choice]:
    """The model to load on each provider, and why; pure.

    True masks count only when all models were measured on the same ones.
    """
    if len(models) < 2:
        return {}
    drawn = {model.verified.get("options", {}).get("truth") for model in models}
    by_model = {model.name: model.candidates for model in models}
    if len(drawn) > 1:
        by_model = {
            name: [each._replace(truth=None) for each in candidates]
            for name, candidates in by_model.items()
        }
    return recommendation.recommend_model(by_model)


def ranking(models: Sequence[ModelFigures]) -> list[Ranked]:
    """Every deployed variant of every model, fastest on WASM first; pure."""
    chosen = {provider: choice.candidate.name for provider, choice in best(models).items()}
    rows = []
    for model in models:
        means = {row.name: row.mean_iou for row in model.variants}
        for each in model.candidates:
            mean = means[each.name]
            rows.append(
                Ranked(
                    model.name,
                    each.name,
                    each.times.get("wasm"),
                    each.size,
                    min(each.native_iou, 1.0 if mean is None else mean),
                    each.truth,
                    [key for key, name in chosen.items() if name == f"{model.name}, {each.name}"],
                )
            )
    return sorted(rows, key=lambda row: (row.wasm is None, row.wasm or 0.0, row.size))


def charts_of(rows: Sequence[VariantFigures]) -> list[charts.Chart]:
    """Bar charts for choosing a variant, each if at least one variant has a figure; pure."""
    bars = [charts.chart("Download", {row.name: [row.size] for row in rows}, mebibytes)]
    for provider, name in PROVIDERS.items():
        times = {row.name: row.encoder_times(provider) for row in rows}
        bars.append(charts.chart(f"Time for an image, {name}", times, milliseconds))
    short = {row.name: [1 - row.mean_iou] for row in rows if row.mean_iou is not None}
    bars.append(charts.chart("1 − mean IoU", short, "{:.4f}".format))
    return [each for each in bars if each.bars]


def drift_of(rows: Sequence[VariantFigures]) -> list[charts.LineChart]:
    """For each clip a chart with each variant's IoU with PyTorch's masks, by frame; pure."""
    series: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for clip in row.tracking["clips"] if row.tracking else ():
            series.setdefault(clip["name"], {})[row.name] = tracked_ious(clip["by_frame"])
    return [charts.line_chart(clip, lines) for clip, lines in series.items()]


def milliseconds(value: float) -> str:
    """A readable time."""
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def spread(times: Sequence[float]) -> str:
    """The median of several times, with the minimum and the maximum."""
    if not times:
        return "–"
    if len(times) == 1:
        return milliseconds(times[0])
    return f"{milliseconds(median(times))} ({ends(times)})"


def ends(times: Sequence[float]) -> str:
    """The minimum and the maximum of several times, both in the unit of the maximum."""
    least, most = min(times), max(times)
    shortest = f"{least:.0f}" if most < 1000 else f"{least / 1000:.2f}"
    return f"{shortest} to {milliseconds(most)}"
