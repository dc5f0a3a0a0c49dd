"""Judges figures by the rules of the configuration, and returns failures. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tasks.clients.contract import Contract, Precision, Tensor
from tasks.config.checks import BrowserCheck, Checks, FidelityCheck, Tolerances
from tasks.config.models import FP32, ProofKind, Target, Variant
from tasks.inference.checks import FINITE, Check, Figure, at_least, at_most, equal, finite, largest
from tasks.proof.failures import TRACKED, Failure, Kind, from_json

Figures = Mapping[str, Any]
ONE_CLICK = "1 click"
PYTORCH, ONNXRUNTIME = "PyTorch", "onnxruntime"

# Operators that multiply matrices, which take nearly all of a graph's time.
PRODUCTS = frozenset(
    {"MatMul", "Gemm", "Conv", "MatMulInteger", "MatMulNBits", "MatMulIntegerToFloat"}
    | {"DynamicQuantizeMatMul", "FusedMatMul", "FusedGemm", "FusedConv", "Attention"}
    | {"MultiHeadAttention", "ConvTranspose", "Einsum", "ConvInteger", "QLinearMatMul"}
)


# The forms in which an embedding can be stored for a model with only a decoder, each with the
# precision whose limits its masks must keep.
STORED_AS: Mapping[str, Precision] = {"float32": "fp32", "float16": "fp16", "int8": "q8"}


def judge(target: Target, variant: Variant, proof: ProofKind, report: Figures) -> list[Failure]:
    """The failures of a report under the current rules, whatever rules judged it before.

    :raises KeyError, TypeError: when the report lacks figures.
    """
    checks = target.source.checks
    if proof == "verify":
        embeddings = None if target.client.encodes else checks.fidelity
        return verify_failures(report, checks.verify, target.source.truth_iou, embeddings)
    if proof == "fidelity":
        return fidelity_failures(report, variant, checks.fidelity)
    if proof == "tracking":
        return tracking_failures(report, tracking_rules(checks, variant))
    least = checks.fidelity.worst_iou(variant.precision)
    tracking = tracking_rules(checks, variant) if target.source.video else None
    return browser_failures(report, browser_rules(checks, variant), least, tracking)


def exceeding(
    check: Check, kind: Kind, figure: Figure, rule: str, **subject: str | None
) -> list[Failure]:
    """The failure of a figure that does not pass a check; empty if it passes.

    :param subject: further fields of the failure.
    """
    if check.passes(figure):
        return []
    limit = "any number" if check == FINITE else check.limit
    return [Failure(kind, finite(figure), limit, rule, **subject)]


def verify_failures(
    report: Figures,
    tolerances: Tolerances,
    truth_iou: float,
    embeddings: FidelityCheck | None = None,
) -> list[Failure]:
    """Where the graphs' tensors, answers and IoU with the truth fail.

    :param embeddings: the limits for stored embeddings, for a model with only a decoder.
    """
    broken = from_json(report["violations"])
    if broken:  # then the graphs were not run
        return broken
    encoded = report["differences"]["features"] or embeddings is not None
    if not encoded or not report["differences"]["prompts"]:
        raise KeyError("differences")  # nothing was measured, so nothing is proven
    failures = exceeded(report["differences"], tolerances, "[verify]")
    truth = report["truth"]
    if truth is not None:
        iou = truth["iou"].get(ONE_CLICK)  # missing where no image had an object
        check = at_least(truth_iou)
        failures += exceeding(check, "truth iou", iou, "truth_iou", prompt="one click")
    if embeddings is not None:
        failures += embedding_failures(report["embeddings"]["stored"], embeddings)
    return failures


def embedding_failures(stored: Figures, check: FidelityCheck) -> list[Failure]:
    """The forms of stored embeddings whose masks differ too much from PyTorch's."""
    failures = []
    for form, precision in STORED_AS.items():
        iou, least = stored[form]["mask_iou"]["mean"], at_least(check.mean_iou(precision))
        rule = f"[fidelity] {precision}"
        failures += exceeding(least, "embedding iou", iou, rule, tensor=form, reference=PYTORCH)
    return failures


def violations(expected: Contract, actual: Contract) -> list[Failure]:
    """Where graphs' tensors break a contract, also in their order, which some clients rely on."""
    broken = []
    for graph, tensors in expected.items():
        broken += _violations(graph, tensors.inputs, actual[graph].inputs)
        broken += _violations(graph, tensors.outputs, actual[graph].outputs)
    return broken


def _violations(graph: str, expected: Sequence[Tensor], actual: Sequence[Tensor]) -> list[Failure]:
    by_name = {tensor.name: tensor for tensor in actual}
    broken = []
    for tensor in expected:
        present = by_name.pop(tensor.name, None)
        if present is None:
            broken.append(Failure("missing tensor", None, str(tensor), graph=graph))
        elif (present.dtype, present.shape) != (tensor.dtype, tensor.shape):
            broken.append(Failure("other tensor", str(present), str(tensor), graph=graph))
    broken += [Failure("unknown tensor", str(tensor), graph=graph) for tensor in by_name.values()]
    names, wanted = (", ".join(each.name for each in some) for some in (actual, expected))
    if not broken and names != wanted:
        broken.append(Failure("tensor order", names, wanted, graph=graph))
    return broken


def exceeded(
    differences: Figures, tolerances: Tolerances | BrowserCheck, table: str
) -> list[Failure]:
    """Each difference that is above its tolerance, or is not a number.

    :param table: the table of the configuration with the tolerances.
    """
    failures = []
    check, rule = at_most(tolerances.encoder_tolerance), f"{table} encoder_tolerance"
    for name, value in differences["features"].items():
        failures += exceeding(check, "features", value, rule, graph="encoder", tensor=name)
    masks, scores = at_most(tolerances.mask_tolerance), at_most(tolerances.score_tolerance)
    for prompt, figures in differences["prompts"].items():
        rule = f"{table} mask_tolerance"
        failures += exceeding(masks, "masks", figures["masks"], rule, prompt=prompt)
        rule = f"{table} score_tolerance"
        failures += exceeding(scores, "scores", figures["scores"], rule, prompt=prompt)
    return failures


def largest_differences(differences: Figures) -> dict[str, Figure]:
    """The largest of each kind: ``encoder``, ``masks``, ``scores``; None if not a number."""
    prompts = differences["prompts"].values()
    return {
        "encoder": largest(differences["features"].values()),
        "masks": largest(each["masks"] for each in prompts),
        "scores": largest(each["scores"] for each in prompts),
    }


def fidelity_failures(report: Figures, variant: Variant, check: FidelityCheck) -> list[Failure]:
    """Where a variant's best-scored masks differ too much from PyTorch's best-scored masks."""
    mean, worst = report["mask_iou"]["mean"], report["mask_iou"]["worst"]
    least = check.mean_iou(variant.precision)
    least_worst = (least if finite(mean) is None else mean) - check.worst
    logits = at_most(check.largest_logit_error(variant.precision))
    expected: list[tuple[Check, Kind, Figure, str]] = [
        (at_least(least), "mean iou", mean, variant.precision),
        (at_least(least_worst), "worst iou", worst, "worst"),
        (
            at_most(check.ranking_flips),
            "ranking flips",
            report["ranking_flips"],
            "ranking_flips",
        ),
        (logits, "mask logits", report["logit_error"], "logit_tolerance"),
        (logits, "mask logits", report["input_error"], "logit_tolerance"),
        (at_most(check.score_tolerance), "mask scores", report["score_error"], "score_tolerance"),
    ]
    return (overflows(report) if variant.computes_in_half else []) + [
        failure
        for check, kind, figure, key in expected
        for failure in exceeding(check, kind, figure, f"[fidelity] {key}", reference=PYTORCH)
    ]


def overflows(report: Figures) -> list[Failure]:
    """The outputs that are not finite for an image of extreme values."""
    if not report["extremes"]:
        raise KeyError("extremes")  # no image was tried, so nothing is proven
    return [
        Failure("not finite", None, tensor=output, prompt=each["image"])
        for each in report["extremes"]
        for output in each["not_finite"]
    ]


@dataclass(frozen=True)
class TrackingRules:
    """The limits for a variant's tracking, and the table of the configuration with them.

    ``key`` is the key of the required mean IoU. ``scores`` is the limit for an object's score, and
    for its pointer, its predicted IoU and its mask's logits, which are relative or below one; None
    accepts any finite number.
    """

    table: str
    key: str
    mask_iou: float
    worst: float
    scores: float | None
    flips: float


def tracking_rules(checks: Checks, variant: Variant) -> TrackingRules:
    """Single precision must match PyTorch; other variants keep the limits of ``[fidelity]``."""
    if not variant.is_smaller:
        tracking = checks.tracking
        scores = tracking.score_tolerance
        return TrackingRules(
            "[tracking]", "mask_iou", tracking.mask_iou, tracking.worst, scores, 0.0
        )
    fidelity, precision = checks.fidelity, variant.precision
    least, worst = fidelity.mean_iou(precision), fidelity.worst_iou(precision)
    return TrackingRules("[fidelity]", precision, least, worst, None, fidelity.ranking_flips)


def tracking_failures(report: Figures, rules: TrackingRules) -> list[Failure]:
    """Where masks, scores and decisions differ too much from PyTorch's, over all frames."""
    broken = from_json(report["violations"])
    if broken:  # then the graphs were not run
        return broken
    return drift_failures(report, rules, PYTORCH)


def drift_failures(figures: Figures, rules: TrackingRules, reference: str) -> list[Failure]:
    """Where a tracker's answers differ too much, over all frames.

    :param reference: the program that it was compared with.
    """
    if not figures["answers"]:
        raise KeyError("answers")  # nothing was measured, so nothing is proven

    def expect(check: Check, kind: Kind, figure: Figure, key: str = "") -> list[Failure]:
        rule = f"{rules.table} {key}".strip()
        return exceeding(check, kind, figure, rule, prompt=TRACKED, reference=reference)

    failures = expect(equal(figures["expected"]), "answers", figures["answers"])
    if failures:
        return failures
    iou, exact = figures["mask_iou"], rules.scores is not None
    failures += expect(at_least(rules.mask_iou), "mean iou", iou["mean"], rules.key)
    failures += expect(at_least(rules.worst), "worst iou", iou["worst"], "worst")
    check = FINITE if rules.scores is None else at_most(rules.scores)
    errors: list[tuple[Kind, str]] = [
        ("object scores", "score_error"),
        ("pointers", "pointer_error"),
        ("predicted ious", "iou_error"),
        ("logits", "logit_error"),
    ]
    for kind, name in errors:
        failures += expect(check, kind, figures[name], "score_tolerance" * exact)
    flips = figures["occlusion_flips"]
    key = "" if exact else "ranking_flips"
    return failures + expect(at_most(rules.flips), "occlusion", flips, key)


def browser_rules(checks: Checks, variant: Variant) -> BrowserCheck:
    """The rules for a variant in the browser.

    Integer products round a little differently on each machine. So does half precision, which WASM
    computes in single precision. So each mask needs only the IoU that ``[fidelity]`` requires of
    the worst.
    """
    if variant.precision not in ("q8", "half"):
        return checks.browser
    return replace(
        checks.browser,
        encoder_tolerance=math.inf,
        mask_tolerance=math.inf,
        score_tolerance=math.inf,
        mask_iou=checks.fidelity.worst_iou(variant.precision),
    )


def browser_failures(
    report: Figures, check: BrowserCheck, least: float, tracking: TrackingRules | None = None
) -> list[Failure]:
    """Where each provider's answers differ too much from onnxruntime's, and its refusals.

    A provider that cannot start is not a failure of the model.

    :param least: the required IoU of each mask with PyTorch's, if that was measured.
    :param tracking: the rules for a model that tracks, which must have tracked on WASM.
    """
    if "wasm" not in report["providers"]:
        raise KeyError("wasm")
    failures = []
    for provider, figures in report["providers"].items():
        if "refused" not in figures and "unavailable" not in figures and not figures["ious"]:
            raise KeyError("ious")  # nothing was compared, so nothing is proven
        own = []
        if "refused" in figures:
            own.append(
                Failure("refused", figures["refused"]["words"], graph=figures["refused"]["graph"])
            )
        if "differences" in figures:
            must = provider == "wasm" and "refused" not in figures
            if tracking is not None and (must or "mask_iou" in figures.get("tracking", {})):
                own += drift_failures(figures["tracking"], tracking, ONNXRUNTIME)
            own += exceeded(figures["differences"], check, "[browser]")
            own += _disagreeing(figures["ious"], check.mask_iou, "[browser] mask_iou", ONNXRUNTIME)
            ious = figures.get("reference_ious", {})
            own += _disagreeing(ious, least, "[fidelity]", PYTORCH)
        failures += [replace(each, provider=provider) for each in own]
    return failures


def _disagreeing(
    ious: Mapping[str, Figure], least: float, rule: str, reference: str
) -> list[Failure]:
    """The failures of masks with a too low IoU, by the names of their prompts."""
    return [
        failure
        for prompt, iou in ious.items()
        for failure in exceeding(
            at_least(least), "mask iou", iou, rule, prompt=prompt, reference=reference
        )
    ]


def blocks_deployment(variant: Variant, failure: Failure) -> bool:
    """Whether a failure in the browser withholds a variant.

    Single precision must work wherever it is tried. Another variant must run on WASM, because
    otherwise no browser can use it; refusals by other providers are only noted.
    """
    return variant == FP32 or failure.provider in (None, "wasm")


def products_on_cpu(placement: Mapping[str, Figures | None]) -> int | None:
    """The number of matrix products that WebGPU leaves to the CPU; None if not measured.

    :param placement: the placement of each graph from the browser's report.
    """
    left = 0
    for placed in placement.values():
        if placed is None:
            return None
        operators = placed["cpuOperators"]
        if operators is None:  # the log names no operators if every node is on the CPU
            left += placed["cpu"]
        else:
            left += sum(count for name, count in operators.items() if name in PRODUCTS)
    return left if placement else None


def rules_of(target: Target, variant: Variant, proof: ProofKind) -> dict[str, Any]:
    """The rules that `judge` applies, as JSON values; None accepts any figure."""
    checks = target.source.checks
    if proof == "verify":
        truth = {"truth_iou": target.source.truth_iou} if target.source.truth else {}
        limits = {form: checks.fidelity.mean_iou(each) for form, each in STORED_AS.items()}
        stored = {} if target.client.encodes else {"stored": limits}
        return {**limits_of(checks.verify), **truth, **stored}
    if proof == "fidelity":
        fidelity = checks.fidelity
        return {
            "mask_iou": fidelity.mean_iou(variant.precision),
            "worst": fidelity.worst,
            "ranking_flips": fidelity.ranking_flips,
            "scores": fidelity.score_tolerance,
            "logits": fidelity.largest_logit_error(variant.precision),
        }
    if proof == "tracking":
        return _limits(checks, variant)
    least = checks.fidelity.worst_iou(variant.precision)
    reference = {} if variant == FP32 else {"reference_iou": least}
    tracking = {"tracking": _limits(checks, variant)} if target.source.video else {}
    browser = browser_rules(checks, variant)
    return {"mask_iou": browser.mask_iou, **limits_of(browser), **reference, **tracking}


def _limits(checks: Checks, variant: Variant) -> dict[str, float | None]:
    """The limits of tracking."""
    limits = asdict(tracking_rules(checks, variant))
    return {key: value for key, value in limits.items() if key not in ("table", "key")}


def limits_of(check: Tolerances | BrowserCheck) -> dict[str, float | None]:
    """The largest accepted differences, by kind as in `largest_differences`; None: any number."""
    limits = {
        "encoder": check.encoder_tolerance,
        "masks": check.mask_tolerance,
        "scores": check.score_tolerance,
    }
    return {kind: finite(limit) for kind, limit in limits.items()}
