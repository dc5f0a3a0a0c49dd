"""What a manifest says of proven files: reports and configuration as a `Manifest`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.clients.client import description
from tasks.config.checkpoint_record import Record
from tasks.config.models import GRAPHS, Target
from tasks.inference.metrics import rounded, significant
from tasks.proof.failures import sentences
from tasks.proof.judged_variant import Judged
from tasks.proof.judgement import products_on_cpu
from tasks.proof.manifest import (
    SCHEMA_VERSION,
    BrowserProof,
    BrowserRules,
    Checkpoint,
    Differences,
    Fidelity,
    Figure,
    File,
    Ious,
    Limits,
    Manifest,
    Native,
    Nodes,
    NotSquare,
    ProviderProof,
    Recommendation,
    Tracked,
    Truth,
    Usage,
    VariantEntry,
    Verification,
    Video,
    as_json,
    structured,
)
from tasks.proof.recommendation import Candidate, recommend
from tasks.proof.reports import Report

PYTORCH = "(PyTorch), onnxruntime on CPU"


def manifest_of(
    target: Target,
    checkpoint: Record,
    files: Mapping[str, File],
    variants: Sequence[Judged],
    packages: Mapping[str, str],
) -> Manifest:
    """The manifest of a model.

    :param files: the graphs that are deployed, by name.
    :param variants: fp32, whether it is wanted or not, then the others.
    """
    source = target.source
    wanted = [each for each in variants if each.wanted]
    wanted.sort(key=lambda each: target.variants.index(each.variant))
    first = next(each for each in wanted if each.deployed)
    single = variants[0]
    verified = single.reports["verify"]
    names = {graph: target.file_name(graph, first.variant) for graph in GRAPHS}
    usage = structured(
        description(
            target.client, target.masks, target.prompts, as_json(files), verified["tensors"], names
        ),
        Usage,
    )
    entries = [variant_entry(target, each) for each in wanted]
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=target.name,
        model_type=None if source.config else verified["architecture"],
        config=str(source.config) if source.config else None,
        checkpoint=Checkpoint(
            url=source.location.shown,
            sha256=checkpoint.sha256,
            size=checkpoint.size,
            synthetic=checkpoint.synthetic,
            commit=checkpoint.commit or None,
        ),
        license=source.license,
        origin="random numbers, not a trained model" if checkpoint.synthetic else source.origin,
        **vars(usage),
        client_version=target.client.version,
        variants=tuple(entries),
        recommended=recommended(entries, files),
        options=target.graph_options,
        packages=packages,
        # Figures of single precision say nothing of other files.
        verification=verification(verified) if single.deployed else None,
        browser=browser_proof(first) if "browser" in first.reports else None,
        video=video(target, first) if source.video else None,
    )


def recommended(
    variants: Sequence[VariantEntry], files: Mapping[str, File]
) -> dict[Any, Recommendation]:
    """The variant to load on each provider; no time counts, as times differ between machines."""
    candidates = [
        Candidate(
            each.name,
            sum(files[name].size for name in each.files.values()),
            frozenset(each.proven_on),
            {},
        )
        for each in variants
        if each.deployed
    ]
    return {
        provider: Recommendation(choice.candidate.name, choice.why)
        for provider, choice in recommend(candidates).items()
    }


def video(target: Target, first: Judged) -> Video:
    """What a program that tracks needs beside the encoder."""
    report = first.reports["tracking"]
    files = {name: target.file_name(name, first.variant) for name in target.source.tracking_graphs}
    return structured({**report["constants"], "files": files, "tensors": report["tensors"]}, Video)


def verification(report: Report) -> Verification:
    """Single precision against PyTorch."""
    differences, rules = report["differences"], report["rules"]
    native, placement = report.get("native"), report["placement"]
    return Verification(
        against=f"SAM2ImagePredictor {PYTORCH}",
        tolerances=Limits(rules["encoder"], rules["masks"], rules["scores"]),
        encoder=_significant(differences["features"]),
        prompts=_by_prompt(differences["prompts"]),
        truth=structured(report["truth"], Truth) if report["truth"] else None,
        native=native and Native(native["image_size"], _ious(native, 4), _iou_with_truth(native)),
        not_square=placement
        and NotSquare(placement["resize"], _ious(placement, 4), _iou_with_truth(placement)),
    )


def variant_entry(target: Target, each: Judged) -> VariantEntry:
    """A variant, deployed or not."""
    tracking = each.reports.get("tracking", {})
    return VariantEntry(
        name=each.variant.name,
        precision=each.variant.precision,
        format=each.variant.format,
        files=target.file_names(each.variant),
        deployed=each.deployed,
        reason=None if each.deployed else each.reason,
        fidelity=fidelity(each.reports["fidelity"]) if "fidelity" in each.reports else None,
        tracking=tracking_proof(tracking) if "mask_iou" in tracking else None,  # it could be run
        browser=browser_proof(each) if "browser" in each.reports else None,
    )


def fidelity(report: Report) -> Fidelity:
    """A variant's masks against PyTorch's."""
    return Fidelity(
        images=report["images"],
        prompts=report["prompts"],
        mask_iou=_ious(report, 6),
        ranking_flips=rounded(report["ranking_flips"], 4),
        logit_error=significant(report["logit_error"], 3),
        input_error=significant(report["input_error"], 3),
        score_error=significant(report["score_error"], 3),
    )


def tracking_proof(report: Report) -> Tracked:
    """Tracking against PyTorch's."""
    return _tracked(report, f"SAM2VideoPredictor {PYTORCH}")


def _tracked(report: Report, against: str) -> Tracked:
    return Tracked(
        against=against,
        masks=report["answers"],
        mask_iou=_ious(report, 6),
        score_error=significant(report["score_error"], 3),
        pointer_error=significant(report["pointer_error"], 3),
        iou_error=significant(report["iou_error"], 3),
        logit_error=significant(report["logit_error"], 3),
        occlusion_flips=rounded(report["occlusion_flips"], 4),
    )


def browser_proof(each: Judged) -> BrowserProof:
    """A browser's report: the agreement, but no time."""
    report = each.reports["browser"]
    return BrowserProof(
        browser=report["browser"],
        runtime=report["runtime"],
        rules=structured(report["rules"], BrowserRules),
        providers={
            provider: _provider_proof(each, provider, figures)
            for provider, figures in report["providers"].items()
        },
    )


def _provider_proof(each: Judged, provider: str, figures: Report) -> ProviderProof:
    if "unavailable" in figures:
        return ProviderProof(proven=False, reason=figures["unavailable"])
    placement = figures.get("placement", {})
    reason = sentences(each.failing_on(provider))
    if not reason and provider == "webgpu":
        reason = _not_on_webgpu(placement)
    adapter, differences = figures.get("adapter"), figures.get("differences")
    tracking = figures.get("tracking", {})
    compared: dict[str, Any] = {}
    if differences is not None:
        compared = {
            "parts": tuple(
                part for part in ("encoder", "decoder") if "run_ms" in figures.get(part, {})
            ),
            "mask_iou": rounded(figures["mask_iou"], 6),
            "encoder": _significant(differences["features"]),
            "prompts": _by_prompt(differences["prompts"]),
        }
    return ProviderProof(
        proven=not reason,
        reason=reason or None,
        software=None if adapter is None else bool(adapter["software"]),
        nodes=None if adapter is None else {g: _nodes(each) for g, each in placement.items()},
        tracking=_tracked(tracking, "tracker.py, onnxruntime on CPU")
        if "mask_iou" in tracking
        else None,
        **compared,
    )


def _nodes(placed: Report | None) -> Nodes | None:
    return None if placed is None else Nodes(placed["webgpu"], placed["cpu"])


def _not_on_webgpu(placement: Report) -> str:
    """Why a graph that WebGPU runs is not proven on it; empty when it is."""
    left = products_on_cpu(placement)
    if left is None:
        return "the log does not say where its nodes run"
    return f"{left} matrix products run on the CPU" if left else ""


def _ious(report: Report, digits: int) -> Ious:
    iou = report["mask_iou"]
    return Ious(rounded(iou["mean"], digits), rounded(iou["worst"], digits))


def _iou_with_truth(report: Report) -> dict[str, float] | None:
    return {k: round(v, 4) for k, v in report["truth"].items()} if report["truth"] else None


def _significant(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    return {name: significant(value) for name, value in figures.items()}


def _by_prompt(prompts: Mapping[str, Mapping[str, Figure]]) -> dict[str, Differences]:
    return {
        name: Differences(significant(figures["masks"]), significant(figures["scores"]))
        for name, figures in prompts.items()
    }
