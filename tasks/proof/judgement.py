"""Figures against the rules of the configuration: what is wrong, as values. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tasks.clients.contract import Contract, Tensor
from tasks.config.checks import BrowserCheck, Checks, FidelityCheck, Tolerances
from tasks.config.models import FP32, ProofKind, Target, Variant
from tasks.inference.checks import FINITE, Check, Figure, at_least, at_most, equal, finite, largest
from tasks.proof.failures import TRACKED, Failure, Kind, from_json

Figures = Mapping[str, Any]
ONE_CLICK = "1 click"
PYTORCH, ONNXRUNTIME = "PyTorch", "onnxruntime"

# Operators that multiply matrices, where nearly all of a graph's time goes.
PRODUCTS = frozenset(
    {"MatMul", "Gemm", "Conv", "MatMulInteger", "MatMulNBits", "MatMulIntegerToFloat"}
    | {"DynamicQuantizeMatMul", "FusedMatMul", "FusedGemm", "FusedConv", "Attention"}
    | {"MultiHeadAttention", "ConvTranspose", "Einsum", "ConvInteger", "QLinearMatMul"}
)


def judge(target: Target, variant: Variant, proof: ProofKind, report: Figures) -> list[Failure]:
    """What the rules that hold now find wrong in a report, whatever it was judged by before.

    :raises KeyError, TypeError: when the report lacks figures.
    """
    checks = target.source.checks
    if proof == "verify":
        return verify_failures(report, checks.verify, target.source.truth_iou)
    if proof == "fidelity":
        return fidelity_failures(report, variant, checks.fidelity)
    if proof == "tracking":
        return tracking_failures(report, tracking_rules(checks, variant))
    least = checks.fidelity.worst_iou(variant.precision)
    tracking = tracking_rules(checks, variant) if target.source.video else None
    return browser_failures(report, browser_rules(checks, variant), least, tracking)


def verify_failures(report: Figures, tolerances: Tolerances, truth_iou: float) -> list[Failure]:
    """How the graphs differ from PyTorch: in their tensors, their answers, and from the truth."""
    broken = from_json(report["violations"])
    if broken:  # and was not run
        return broken
    if not report["differences"]["features"] or not report["differences"]["prompts"]:
        raise KeyError("differences")  # nothing was measured, so nothing is proven
    failures = exceeded(report["differences"], tolerances, "[verify]")
    truth = report["truth"]
    if truth is not None:
        iou = truth["iou"].get(ONE_CLICK)  # missing where no image had an object
        if not at_least(truth_iou).passes(iou):
            failures.append(
                Failure("truth iou", finite(iou), truth_iou, "truth_iou", prompt="one click")
            )
    return failures


def violations(expected: Contract, actual: Contract) -> list[Failure]:
    """What graphs' tensors break of a contract."""
    return [
        failure
        for graph, tensors in expected.items()
        for wanted, present in (
            (tensors.inputs, actual[graph].inputs),
            (tensors.outputs, actual[graph].outputs),
        )
        for failure in _violations(graph, wanted, present)
    ]


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
    return broken or order_violations(
        graph, [each.name for each in expected], [each.name for each in actual]
    )


def order_violations(graph: str, expected: Sequence[str], names: Sequence[str]) -> list[Failure]:
    """Where tensors come in another order than the contract's: some clients take them by position.

    :param expected: the names of a graph's inputs, or of its outputs; ``names``: the file's.
    """
    if list(expected) == list(names):
        return []
    return [Failure("tensor order", ", ".join(names), ", ".join(expected), graph=graph)]


def exceeded(
    differences: Figures,
    tolerances: Tolerances | BrowserCheck,
    table: str,
    provider: str | None = None,
) -> list[Failure]:
    """Each difference above its tolerance, or not a number.

    :param table: of the configuration, which holds the tolerances.
    """
    failures = []

    def check(kind: Kind, value: Figure, key: str, **subject: str) -> None:
        limit = getattr(tolerances, key)
        if not at_most(limit).passes(value):
            rule = f"{table} {key}"
            failures.append(Failure(kind, finite(value), limit, rule, provider, **subject))

    for name, value in differences["features"].items():
        check("features", value, "encoder_tolerance", graph="encoder", tensor=name)
    for prompt, figures in differences["prompts"].items():
        check("masks", figures["masks"], "mask_tolerance", prompt=prompt)
        check("scores", figures["scores"], "score_tolerance", prompt=prompt)
    return failures


def largest_differences(differences: Figures) -> dict[str, Figure]:
    """The largest of each kind: ``encoder``, ``masks`` and ``scores``; None: not a number."""
    prompts = list(differences["prompts"].values())
    kinds: dict[str, list[Figure]] = {
        "encoder": list(differences["features"].values()),
        "masks": [each["masks"] for each in prompts],
        "scores": [each["scores"] for each in prompts],
    }
    return {kind: largest(values) for kind, values in kinds.items()}


def fidelity_failures(
    report: Figures, variant: Variant, check: FidelityCheck, provider: str | None = None
) -> list[Failure]:
    """How the masks that a variant scores best differ from those that PyTorch scores best."""
    mean, worst = report["mask_iou"]["mean"], report["mask_iou"]["worst"]
    least = check.mean_iou(variant.precision)
    failures: list[Failure] = []

    def judge(kind: Kind, check: Check, value: Figure, key: str) -> None:
        if not check.passes(value):
            limit = None if check.kind == "finite" else check.limit
            rule = f"[fidelity] {key}"
            failures.append(Failure(kind, finite(value), limit, rule, provider, reference=PYTORCH))

    judge("mean iou", at_least(least), mean, variant.precision)
    worst_allowed = least - check.worst if finite(mean) is None else mean - check.worst
    judge("worst iou", at_least(worst_allowed), worst, "worst")
    judge("ranking flips", at_most(check.ranking_flips), report["ranking_flips"], "ranking_flips")
    for name in ("logit_error", "input_error"):
        limit = at_most(check.largest_logit_error(variant.precision))
        judge("mask logits", limit, report[name], "logit_tolerance")
    judge("mask scores", at_most(check.score_tolerance), report["score_error"], "score_tolerance")
    return failures


@dataclass(frozen=True)
class TrackingRules:
    """The limits that hold for a variant's tracking, and the table that they come from.

    ``key`` is that of the least mean IoU. ``scores`` is for an object's score, and for its pointer,
    its predicted IoU and its mask's logits, which are relative or below one; None where any finite
    number will do.
    """

    table: str
    key: str
    mask_iou: float
    worst: float
    scores: float | None
    flips: float


def tracking_rules(checks: Checks, variant: Variant) -> TrackingRules:
    """Single precision must do what PyTorch does; others come as near as ``[fidelity]`` asks."""
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
    """How masks, scores and decisions differ from PyTorch's, over every frame of the clips."""
    broken = from_json(report["violations"])
    if broken:  # and was not run
        return broken
    return drift_failures(report, rules, PYTORCH)


def drift_failures(
    figures: Figures, rules: TrackingRules, reference: str, provider: str | None = None
) -> list[Failure]:
    """How the answers of a tracker differ, over every frame.

    :param reference: whose answers it was compared with.
    """
    if not figures["answers"]:
        raise KeyError("answers")  # nothing was measured, so nothing is proven
    failures = []

    def expect(check: Check, kind: Kind, figure: Figure, key: str = "") -> None:
        if not check.passes(figure):
            rule = f"{rules.table} {key}".strip()
            limit = "any number" if check == FINITE else check.limit
            failures.append(
                Failure(kind, figure, limit, rule, provider, prompt=TRACKED, reference=reference)
            )

    expect(equal(figures["expected"]), "answers", figures["answers"])
    if failures:
        return failures
    expect(at_least(rules.mask_iou), "mean iou", figures["mask_iou"]["mean"], rules.key)
    expect(at_least(rules.worst), "worst iou", figures["mask_iou"]["worst"], "worst")
    errors: list[tuple[Kind, str]] = [
        ("object scores", "score_error"),
        ("pointers", "pointer_error"),
        ("predicted ious", "iou_error"),
        ("logits", "logit_error"),
    ]
    for kind, name in errors:
        if rules.scores is None:
            expect(FINITE, kind, figures[name])
        else:
            expect(at_most(rules.scores), kind, figures[name], "score_tolerance")
    key = "ranking_flips" if rules.scores is None else ""
    expect(at_most(rules.flips), "occlusion", figures["occlusion_flips"], key)
    return failures


def browser_rules(checks: Checks, variant: Variant) -> BrowserCheck:
    """The rules for a variant in the browser.

    Integer products round a little differently on each machine: with eight bits, each mask must
    agree as well as ``[fidelity]`` asks of the worst, and nothing more.
    """
    if variant.precision != "q8":
        return checks.browser
    return replace(
        checks.browser,
        encoder_tolerance=math.inf,
        mask_tolerance=math.inf,
        score_tolerance=math.inf,
        mask_iou=checks.fidelity.worst_iou("q8"),
    )


def browser_failures(
    report: Figures, check: BrowserCheck, least: float, tracking: TrackingRules | None = None
) -> list[Failure]:
    """How the answers of each provider differ from onnxruntime's; and what it refused.

    A provider that cannot even start is not the model's fault.

    :param least: the least IoU of each mask with PyTorch's, where that was measured.
    :param tracking: of a model that tracks, which WASM must have done.
    """
    failures = []
    if "wasm" not in report["providers"]:
        raise KeyError("wasm")
    for provider, figures in report["providers"].items():
        if "refused" not in figures and "unavailable" not in figures and not figures["ious"]:
            raise KeyError("ious")  # nothing was compared, so nothing is proven
        if "refused" in figures:
            words, graph = figures["refused"]["words"], figures["refused"]["graph"]
            failures.append(Failure("refused", words, provider=provider, graph=graph))
        if "differences" not in figures:
            continue
        must = provider == "wasm" and "refused" not in figures
        if tracking is not None and (must or "mask_iou" in figures.get("tracking", {})):
            failures += drift_failures(figures["tracking"], tracking, ONNXRUNTIME, provider)
        failures += exceeded(figures["differences"], check, "[browser]", provider)
        compared = {ONNXRUNTIME: (figures["ious"], check.mask_iou, "[browser] mask_iou")}
        if "reference_ious" in figures:
            compared[PYTORCH] = (figures["reference_ious"], least, "[fidelity]")
        for reference, (ious, limit, rule) in compared.items():
            failures += [
                Failure(
                    "mask iou",
                    finite(iou),
                    limit,
                    rule,
                    provider,
                    prompt=prompt,
                    reference=reference,
                )
                for prompt, iou in ious.items()
                if not at_least(limit).passes(iou)
            ]
    return failures


def blocks_deployment(variant: Variant, failure: Failure) -> bool:
    """Whether a failure in the browser withholds a variant.

    Single precision must work wherever it is tried. Another variant must run on WASM, or no browser
    can use it; what another provider refuses is noted.
    """
    return variant == FP32 or failure.provider in (None, "wasm")


def products_on_cpu(placement: Mapping[str, Figures | None]) -> int | None:
    """How many matrix products WebGPU leaves to the CPU; None where it was not measured.

    :param placement: of each graph, as the browser's report has it.
    """
    left = 0
    for placed in placement.values():
        if placed is None:
            return None
        operators = placed["cpuOperators"]
        if operators is None:  # the log names none where every node is on the CPU
            left += placed["cpu"]
        else:
            left += sum(count for name, count in operators.items() if name in PRODUCTS)
    return left if placement else None


def rules_of(target: Target, variant: Variant, proof: ProofKind) -> dict[str, Any]:
    """The rules that `judge` goes by, as JSON has them; None where any figure will do."""
    checks = target.source.checks
    if proof == "verify":
        truth = {"truth_iou": target.source.truth_iou} if target.source.truth else {}
        return {**limits_of(checks.verify), **truth}
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
    """The largest differences, by kind as in `largest_differences`; None: any number will do."""
    limits = {
        "encoder": check.encoder_tolerance,
        "masks": check.mask_tolerance,
        "scores": check.score_tolerance,
    }
    return {kind: finite(limit) for kind, limit in limits.items()}
