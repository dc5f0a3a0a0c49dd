"""Writes the manifest of proven files, and the other texts that a client reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.clients.client import description
from tasks.clients.contract import Precision, Tensor
from tasks.inference.metrics import rounded, significant
from tasks.model.families.registry import family_of
from tasks.proof import manifest, runtimes
from tasks.proof.failures import sentences
from tasks.proof.figures import Ious
from tasks.proof.judged_model import PACKAGES, JudgedModel, JudgedVariant
from tasks.proof.judgement import products_on_cpu
from tasks.proof.manifest import File, as_json, structured
from tasks.proof.recommendation import Candidate, recommend
from tasks.proof.reports import Report
from tasks.system.versions import versions

PYTORCH = "(PyTorch), onnxruntime on CPU"


Also = Callable[[manifest.Manifest], Mapping[str, str]]


def documents(model: JudgedModel, also: Also = lambda described: {}) -> dict[str, str]:
    """The text of each file that is deployed beside the graphs, the manifest last.

    :param also: makes further texts from the manifest, which lists all files except these.
    """
    precisions = {
        name: each.variant.precision for each in model.deployed for name in each.names.values()
    }
    graphs = {
        name: _graph_file(model.target.source.opset, precisions[name], name, path, sha256)
        for name, (path, sha256) in model.files.items()
    }
    described = manifest_of(model, graphs)
    texts = dict(model.target.client.documents(as_json(described)))
    described = replace(described, files={**graphs, **_files_of(texts)})
    texts |= also(described)
    files = {**graphs, **_files_of(texts)}
    content = json.dumps(as_json(replace(described, files=files)), indent=2, allow_nan=False)
    return {**texts, model.target.manifest.name: content + "\n"}


def _graph_file(opset: int, precision: Precision, name: str, path: Path, sha256: str) -> File:
    installed = versions("onnxruntime")["onnxruntime"]
    return File(
        path.stat().st_size,
        sha256,
        runtimes.needs(opset, precision, name),
        runtimes.runs_on(opset, precision, name, installed),
    )


def _files_of(texts: Mapping[str, str]) -> dict[str, File]:
    encoded = {name: text.encode() for name, text in texts.items()}
    return {
        name: File(len(data), hashlib.sha256(data).hexdigest()) for name, data in encoded.items()
    }


def manifest_of(model: JudgedModel, files: Mapping[str, File]) -> manifest.Manifest:
    """The manifest of a model.

    :param files: the graphs that are deployed, by name.
    """
    target, checkpoint = model.target, model.checkpoint
    source, client = target.source, target.client
    wanted = [each for each in model.variants if each.wanted]
    wanted.sort(key=lambda each: target.variants.index(each.variant))
    first = next(each for each in wanted if each.deployed)
    single = model.variants[0]
    verified = single.reports["verify"]
    names = {graph: first.names[graph] for graph in target.graphs}
    tensors = verified["tensors"]
    usage = description(client, target.masks, target.prompts, {}, tensors, names)
    entries = [variant_entry(each) for each in wanted]
    return manifest.Manifest(
        schema_version=manifest.SCHEMA_VERSION,
        model=target.name,
        model_type=None if source.config else verified["architecture"],
        config=str(source.config) if source.config else None,
        checkpoint=replace(checkpoint, url=source.location.shown, commit=checkpoint.commit or None),
        license=source.license,
        origin="random numbers, not a trained model" if checkpoint.synthetic else source.origin,
        client=client.name,
        files=files,
        encoder=structured(usage["encoder"], manifest.Graph) if client.encodes else None,
        embeddings=None if client.encodes else embeddings(checkpoint.sha256, verified),
        decoder=structured(usage["decoder"], manifest.Graph),
        preprocessing=structured(usage["preprocessing"], manifest.Preprocessing),
        prompts=structured(usage["prompts"], manifest.Prompting),
        masks=structured(usage["masks"], manifest.Masks),
        client_version=client.version,
        variants=tuple(entries),
        recommended=recommended(entries, files),
        options=target.graph_options,
        packages=versions(*PACKAGES),
        # Figures of single precision do not apply to other files.
        verification=verification(verified) if single.deployed else None,
        browser=browser_proof(first),
        video=video(first) if source.video else None,
    )


def recommended(
    variants: Sequence[manifest.VariantEntry], files: Mapping[str, File]
) -> dict[Any, manifest.Recommendation]:
    """The variant to load on each provider; times are ignored, as they differ between machines."""
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
        provider: manifest.Recommendation(choice.candidate.name, choice.why)
        for provider, choice in recommend(candidates).items()
    }


def embeddings(checkpoint: str, verified: Report) -> manifest.Embeddings:
    """The embeddings that a model with only a decoder accepts, and the cost of smaller storage."""
    measured, inputs = verified["embeddings"], verified["tensors"]["decoder"]["inputs"]
    tensor = next(each for each in inputs if each["role"] == "image_embed")
    stored = {
        form: manifest.StoredEmbedding(each["size"], _ious(each, 6))
        for form, each in measured["stored"].items()
    }
    size = measured["image_size"]
    return manifest.Embeddings(checkpoint, size, structured(tensor, Tensor), stored)


def video(first: JudgedVariant) -> manifest.Video:
    """The data that a tracking program needs besides the encoder."""
    report = first.reports["tracking"]
    files = {graph: first.names[graph] for graph in first.target.source.tracking_graphs}
    return structured(
        {**report["constants"], "files": files, "tensors": report["tensors"]}, manifest.Video
    )


def verification(report: Report) -> manifest.Verification:
    """The comparison of single precision with PyTorch."""
    rules = report["rules"]
    native, placement = report.get("native"), report["placement"]
    return manifest.Verification(
        against=f"{family_of(report['architecture']).compared_with} {PYTORCH}",
        tolerances=manifest.Limits(rules["encoder"], rules["masks"], rules["scores"]),
        **_differences(report["differences"]),
        truth=structured(report["truth"], manifest.Truth) if report["truth"] else None,
        native=native
        and manifest.Native(native["image_size"], _ious(native, 4), _iou_with_truth(native)),
        not_square=placement
        and manifest.NotSquare(
            placement["resize"], _ious(placement, 4), _iou_with_truth(placement)
        ),
    )


def variant_entry(each: JudgedVariant) -> manifest.VariantEntry:
    """A variant, deployed or not."""
    variant = each.variant
    return manifest.VariantEntry(
        name=variant.name,
        precision=variant.precision,
        format=variant.format,
        files=each.names,
        deployed=each.deployed,
        reason=None if each.deployed else each.reason,
        fidelity=fidelity(each.reports["fidelity"]) if "fidelity" in each.reports else None,
        tracking=tracked(each.reports.get("tracking", {}), f"SAM2VideoPredictor {PYTORCH}"),
        browser=browser_proof(each),
    )


def fidelity(report: Report) -> manifest.Fidelity:
    """The comparison of a variant's masks with PyTorch's."""
    return manifest.Fidelity(
        images=report["images"],
        prompts=report["prompts"],
        mask_iou=_ious(report, 6),
        ranking_flips=rounded(report["ranking_flips"], 4),
        logit_error=significant(report["logit_error"], 3),
        input_error=significant(report["input_error"], 3),
        score_error=significant(report["score_error"], 3),
    )


def tracked(report: Report, against: str) -> manifest.Tracked | None:
    """The comparison of tracking with another tracker's; None if it could not run."""
    if "mask_iou" not in report:
        return None
    return manifest.Tracked(
        against=against,
        masks=report["answers"],
        mask_iou=_ious(report, 6),
        score_error=significant(report["score_error"], 3),
        pointer_error=significant(report["pointer_error"], 3),
        iou_error=significant(report["iou_error"], 3),
        logit_error=significant(report["logit_error"], 3),
        occlusion_flips=rounded(report["occlusion_flips"], 4),
    )


def browser_proof(each: JudgedVariant) -> manifest.BrowserProof | None:
    """A browser's report without its times; None if no browser ran the variant."""
    report = each.reports.get("browser")
    if report is None:
        return None
    return manifest.BrowserProof(
        browser=report["browser"],
        runtime=report["runtime"],
        rules=structured(report["rules"], manifest.BrowserRules),
        providers={
            provider: _provider_proof(each, provider, figures)
            for provider, figures in report["providers"].items()
        },
    )


def _provider_proof(each: JudgedVariant, provider: str, figures: Report) -> manifest.ProviderProof:
    if "unavailable" in figures:
        return manifest.ProviderProof(proven=False, reason=figures["unavailable"])
    placement = figures.get("placement", {})
    reason = sentences(each.failing_on(provider))
    if not reason and provider == "webgpu":
        reason = _not_on_webgpu(placement)
    adapter = figures.get("adapter")
    compared: dict[str, Any] = {}
    if "differences" in figures:
        compared = {
            "parts": tuple(
                part for part in ("encoder", "decoder") if "run_ms" in figures.get(part, {})
            ),
            "mask_iou": rounded(figures["mask_iou"], 6),
            **_differences(figures["differences"]),
        }
    return manifest.ProviderProof(
        proven=not reason,
        reason=reason or None,
        build=figures.get("build"),
        layout=figures.get("layout"),
        software=None if adapter is None else bool(adapter["software"]),
        nodes=None if adapter is None else {g: _nodes(each) for g, each in placement.items()},
        tracking=tracked(figures.get("tracking", {}), "tracker.py, onnxruntime on CPU"),
        **compared,
    )


def _nodes(placed: Report | None) -> manifest.Nodes | None:
    return None if placed is None else manifest.Nodes(placed["webgpu"], placed["cpu"])


def _not_on_webgpu(placement: Report) -> str:
    """Why a graph that runs on WebGPU is not proven there; empty if it is proven."""
    left = products_on_cpu(placement)
    if left is None:
        return "the log does not show where its nodes run"
    return f"{left} matrix products run on the CPU" if left else ""


def _ious(report: Report, digits: int) -> Ious:
    iou = report["mask_iou"]
    return Ious(rounded(iou["mean"], digits), rounded(iou["worst"], digits))


def _iou_with_truth(report: Report) -> dict[str, float] | None:
    return {k: round(v, 4) for k, v in report["truth"].items()} if report["truth"] else None


def _differences(differences: Report) -> dict[str, Any]:
    """The largest differences: of the encoder's outputs, and of each prompt's masks and scores."""
    features, prompts = differences["features"], differences["prompts"]
    return {
        "encoder": {name: significant(value) for name, value in features.items()},
        "prompts": {
            name: manifest.Differences(significant(each["masks"]), significant(each["scores"]))
            for name, each in prompts.items()
        },
    }
