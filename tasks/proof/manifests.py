"""The manifest beside deployed files: what each variant was judged to be, and what to load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.clients.client import description
from tasks.config.models import GRAPHS, ProofKind, Target, Variant
from tasks.console.invocation import command
from tasks.inference.metrics import rounded, significant
from tasks.proof.failures import Failure, sentences
from tasks.proof.judgement import blocks_deployment, products_on_cpu
from tasks.proof.recommendation import PREFERRED, Candidate, recommend
from tasks.proof.reports import Proof, Report
from tasks.records.checkpoint_record import Record
from tasks.system.errors import StageError
from tasks.system.versions import versions

SCHEMA_VERSION = 3

# Whose versions a manifest names.
PACKAGES = ("sam2", "samexporter", "torch", "onnx", "onnxsim", "onnxruntime")


@dataclass(frozen=True)
class Judged:
    """A variant with the reports on just its files.

    ``files`` have their SHA-256; ``failing`` is what the rules find wrong, by proof.
    """

    variant: Variant
    asked: bool
    files: Mapping[Path, str]
    reports: Mapping[ProofKind, Report]
    failing: Mapping[ProofKind, list[Failure]] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """What keeps it from being deployed; empty when nothing does."""
        return sentences(
            failure
            for proof, found in self.failing.items()
            for failure in found
            if proof != "browser" or blocks_deployment(self.variant, failure)
        )

    @property
    def deployed(self) -> bool:
        """Whether its files are to be deployed."""
        return self.asked and not self.reason

    def failing_on(self, provider: str) -> list[Failure]:
        """What a provider did wrong."""
        return [each for each in self.failing.get("browser", []) if each.provider == provider]


def judge_variant(
    target: Target,
    variant: Variant,
    files: Mapping[Path, str],
    proven: Mapping[ProofKind, Report],
) -> Judged:
    """Judge a variant's reports by the rules that hold now.

    :raises StageError: when a report lacks the figures of its proof.
    """
    failing = {}
    for kind, report in proven.items():
        proof = Proof(kind, target, variant)
        try:
            failures = proof.judge(report)
        except (KeyError, TypeError, AttributeError) as error:
            raise StageError(
                f"the {kind} report of {target.name}'s {variant.name} lacks figures "
                f"({type(error).__name__}: {error}); {command(f'forget {proof.task}')} and build "
                "again"
            ) from error
        if failures:
            failing[kind] = failures
    return Judged(variant, variant in target.variants, files, proven, failing)


def configured(target: Target) -> dict[str, Any]:
    """What the manifest says of the configuration."""
    source = target.source
    return {
        "model": target.name,
        "url": source.location.shown,
        "license": source.license,
        "origin": source.origin,
        "client": {**target.client.as_json(), "version": target.client.version},
        "files": [name for each in target.variants for name in target.file_names(each).values()],
        **target.graph_options,
    }


def inputs(target: Target, needed: Mapping[Variant, Sequence[Proof]]) -> dict[str, Any]:
    """What shapes a deploy and is in none of the files that it reads.

    :param needed: the proofs of each variant, whose options and rules are among it.
    """
    return {
        **configured(target),
        "sha256": target.source.sha256,
        "variants": [each.name for each in target.variants],
        "proofs": {
            f"{variant.name} {each.kind}": {**each.options, **each.rules}
            for variant, proofs in needed.items()
            for each in proofs
        },
        **versions(*PACKAGES),
    }


def manifest_of(
    target: Target,
    known: Record,
    files: Mapping[str, Mapping[str, Any]],
    variants: Sequence[Judged],
    packages: Mapping[str, str],
) -> dict[str, Any]:
    """What a consumer needs to know of the deployed files; pure.

    :param files: size and sha256 of each deployed file, and the runtimes that it needs.
    :param variants: fp32, whether it is asked for or not, then the others.
    """
    asked = sorted((v for v in variants if v.asked), key=lambda v: target.variants.index(v.variant))
    first = next(each for each in asked if each.deployed)
    single = variants[0]
    verified = single.reports["verify"]
    names = {graph: target.file_name(graph, first.variant) for graph in GRAPHS}
    prefer = preferred(asked)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": target.name,
        "model_type": None if target.source.config else verified["architecture"],
        "config": str(target.source.config) if target.source.config else None,
        "checkpoint": {
            "url": target.source.location.shown,
            "sha256": known.sha256,
            "size": known.size,
            "synthetic": known.synthetic,
            **({"commit": known.commit} if known.commit else {}),
        },
        "license": target.source.license,
        "origin": "random numbers, not a trained model"
        if known.synthetic
        else target.source.origin,
        **description(
            target.client, target.masks, target.prompts, files, verified["tensors"], names
        ),
        "client_version": target.client.version,
        "variants": [variant_entry(target, each) for each in asked],
        "prefer": prefer,
        "recommended": recommended(target, asked, files, prefer),
        "options": target.graph_options,
        "packages": packages,
        # Figures of single precision say nothing of other files.
        "verification": verification(verified) if single.deployed else None,
        "browser": browser_proof(first) if "browser" in first.reports else None,
        **({"video": video(target, first)} if target.source.video else {}),
    }


def video(target: Target, first: Judged) -> dict[str, Any]:
    """What a program that tracks needs beside the graphs: files, tensors and constants."""
    report = first.reports["tracking"]
    return {
        **report["constants"],
        "files": {
            name: target.file_name(name, first.variant) for name in target.source.tracking_graphs
        },
        "tensors": report["tensors"],
    }


def verification(report: Report) -> dict[str, Any]:
    """What there is to say of single precision against PyTorch."""
    found = report["differences"]
    return {
        "against": "SAM2ImagePredictor (PyTorch), onnxruntime on CPU",
        "tolerances": {key: report["rules"][key] for key in ("encoder", "masks", "scores")},
        "encoder": {name: significant(value) for name, value in found["features"].items()},
        "prompts": _rounded(found["prompts"]),
        **({"truth": report["truth"]} if report["truth"] else {}),
        **({"native": of_native(report["native"])} if report.get("native") else {}),
        **({"not_square": not_square(report["placement"])} if report["placement"] else {}),
    }


def of_native(native: Mapping[str, Any]) -> dict[str, Any]:
    """What it costs that images are of another size than the weights were trained on."""
    truth = native["truth"] or {}
    return {
        "image_size": native["image_size"],
        "mask_iou": {key: round(value, 4) for key, value in native["mask_iou"].items()},
        **({"iou_with_truth": {k: round(v, 4) for k, v in truth.items()}} if truth else {}),
    }


def not_square(placement: Mapping[str, Any]) -> dict[str, Any]:
    """What it costs on images that are not square that a client does not stretch them."""
    truth = placement["truth"] or {}
    return {
        "resize": placement["resize"],
        "mask_iou_with_stretched": {k: round(v, 4) for k, v in placement["mask_iou"].items()},
        **({"iou_with_truth": {k: round(v, 4) for k, v in truth.items()}} if truth else {}),
    }


def variant_entry(target: Target, each: Judged) -> dict[str, Any]:
    """What a manifest says of a variant, deployed or not."""
    found: dict[str, Any] = {
        "name": each.variant.name,
        "precision": each.variant.precision,
        "format": each.variant.format,
        "files": {graph: target.file_name(graph, each.variant) for graph in target.all_graphs},
        "deployed": each.deployed,
    }
    if not each.deployed:
        found["reason"] = each.reason
    if "fidelity" in each.reports:
        report = each.reports["fidelity"]
        found["fidelity"] = {
            "images": report["images"],
            "prompts": report["prompts"],
            "mask_iou": {key: rounded(value, 6) for key, value in report["mask_iou"].items()},
            "ranking_flips": rounded(report["ranking_flips"], 4),
            "logit_error": significant(report["logit_error"], 3),
            "input_error": significant(report["input_error"], 3),
            "score_error": significant(report["score_error"], 3),
        }
    if "mask_iou" in each.reports.get("tracking", {}):  # its graphs could be run
        found["tracking"] = tracking_proof(each.reports["tracking"])
    if "browser" in each.reports:
        found["browser"] = browser_proof(each)
    return found


def tracking_proof(report: Report) -> dict[str, Any]:
    """What a manifest says of tracking against PyTorch."""
    return _tracked(report, "SAM2VideoPredictor (PyTorch), onnxruntime on CPU")


def _tracked(report: Mapping[str, Any], against: str) -> dict[str, Any]:
    return {
        "against": against,
        "masks": report["answers"],
        "mask_iou": {key: rounded(value, 6) for key, value in report["mask_iou"].items()},
        "score_error": significant(report["score_error"], 3),
        "pointer_error": significant(report["pointer_error"], 3),
        "iou_error": significant(report["iou_error"], 3),
        "logit_error": significant(report["logit_error"], 3),
        "occlusion_flips": rounded(report["occlusion_flips"], 4),
    }


def browser_proof(each: Judged) -> dict[str, Any]:
    """What a manifest says of a browser's report: the agreement, but no time."""
    report = each.reports["browser"]
    return {
        "browser": report["browser"],
        "runtime": report["runtime"],
        "rules": report["rules"],
        "providers": {
            provider: _agreement(each, provider, figures)
            for provider, figures in report["providers"].items()
        },
    }


def _agreement(each: Judged, provider: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of one provider."""
    if "unavailable" in figures:
        return {"proven": False, "reason": figures["unavailable"]}
    failing = each.failing_on(provider)
    placement = figures.get("placement", {})
    nodes = {
        graph: placed and {"webgpu": placed["webgpu"], "cpu": placed["cpu"]}
        for graph, placed in placement.items()
    }
    reason = sentences(failing)
    if not reason and provider == "webgpu":
        reason = _not_on_webgpu(placement)
    found: dict[str, Any] = {"proven": not reason}
    if reason:
        found["reason"] = reason
    if "adapter" in figures:
        found |= {"software": bool(figures["adapter"]["software"]), "nodes": nodes}
    if "differences" in figures:
        found |= {
            "parts": [part for part in ("encoder", "decoder") if "run_ms" in figures.get(part, {})],
            "mask_iou": rounded(figures["mask_iou"], 6),
            "encoder": {
                name: significant(value)
                for name, value in figures["differences"]["features"].items()
            },
            "prompts": _rounded(figures["differences"]["prompts"]),
        }
    if "mask_iou" in figures.get("tracking", {}):
        found["tracking"] = _tracked(figures["tracking"], "tracker.py, onnxruntime on CPU")
    return found


def _not_on_webgpu(placement: Mapping[str, Any]) -> str:
    """Why a graph that WebGPU runs is not proven on it; empty when it is."""
    left = products_on_cpu(placement)
    if left is None:
        return "where its nodes run is not known"
    return f"{left} matrix products run on the CPU" if left else ""


def _rounded(prompts: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    return {
        name: {kind: significant(value) for kind, value in figures.items()}
        for name, figures in prompts.items()
    }


def preferred(variants: Sequence[Judged]) -> dict[str, str | None]:
    """The variant to load on each provider; None where none is proven."""
    found: dict[str, str | None] = {}
    for provider, precisions in PREFERRED.items():
        candidates = [
            each
            for precision in precisions
            for each in variants
            if each.variant.precision == precision and each.deployed and is_proven(each, provider)
        ]
        found[provider] = candidates[0].variant.name if candidates else None
    return found


def recommended(
    target: Target,
    variants: Sequence[Judged],
    files: Mapping[str, Mapping[str, Any]],
    prefer: Mapping[str, str | None],
) -> dict[str, Any]:
    """The variant to load on each provider, natively too, and why; by what is no time."""
    candidates = [
        Candidate(
            each.variant.name,
            sum(
                files[target.file_name(graph, each.variant)]["size"] for graph in target.all_graphs
            ),
            frozenset({"native", *(name for name in PREFERRED if is_proven(each, name))}),
            {},
        )
        for each in variants
        if each.deployed
    ]
    return {
        each.provider: {"variant": each.variant, "why": each.why}
        for each in recommend(candidates, prefer)
    }


def is_proven(each: Judged, provider: str) -> bool:
    """Whether a browser has run a variant on a provider, as it should."""
    if "browser" not in each.reports:
        return False
    figures = each.reports["browser"]["providers"].get(provider)
    return figures is not None and bool(_agreement(each, provider, figures)["proven"])
