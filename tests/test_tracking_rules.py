"""Failures in tracking figures, against PyTorch and in the browser."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from tasks import tracking
from tasks.config.checks import BrowserCheck
from tasks.inference.scripts import Answer, Answers
from tasks.proof.description import tracked
from tasks.proof.drift import compare_answers
from tasks.proof.figures import Ious
from tasks.proof.judgement import TrackingRules, browser_failures, tracking_failures

RULES = TrackingRules("[tracking]", "mask_iou", mask_iou=0.999, worst=0.99, scores=1e-3, flips=0.0)
LOOSE = TrackingRules("[fidelity]", "q8", mask_iou=0.97, worst=0.87, scores=None, flips=0.1)
GOOD: dict[str, Any] = {
    "violations": [],
    "answers": 27,
    "expected": 27,
    "mask_iou": {"mean": 1.0, "worst": 1.0},
    "score_error": 1e-5,
    "pointer_error": 1e-6,
    "iou_error": 1e-6,
    "logit_error": 1e-6,
    "occlusion_flips": 0.0,
}
WRONG = [
    ({"mask_iou": {"mean": 0.9985, "worst": 0.995}}, "mean iou"),
    ({"mask_iou": {"mean": 0.9999, "worst": 0.98}}, "worst iou"),
    ({"mask_iou": {"mean": float("nan"), "worst": 1.0}}, "mean iou"),
    ({"score_error": 2e-3}, "object scores"),
    ({"score_error": float("nan")}, "object scores"),
    ({"score_error": None}, "object scores"),
    ({"pointer_error": 2e-3}, "pointers"),
    ({"pointer_error": None}, "pointers"),
    ({"iou_error": 2e-3}, "predicted ious"),
    ({"iou_error": None}, "predicted ious"),
    ({"logit_error": 2e-3}, "logits"),
    ({"logit_error": None}, "logits"),
    ({"occlusion_flips": 1 / 27}, "occlusion"),
    ({"occlusion_flips": None}, "occlusion"),
    ({"answers": 26}, "answers"),
    ({"answers": 28}, "answers"),
]


def in_browser(**providers: dict[str, Any]) -> dict[str, Any]:
    """A browser's report with no differences for images."""
    agreed = {
        "differences": {"features": {"image_embed": 0.0}, "prompts": {}},
        "ious": {"one point": 1.0},
    }
    return {"providers": {name: {**agreed, **figures} for name, figures in providers.items()}}


def test_figures_within_the_limits_pass() -> None:
    assert tracking_failures(GOOD, RULES) == []
    report = in_browser(wasm={"tracking": GOOD})
    assert browser_failures(report, BrowserCheck(), 1.0, RULES) == []


@pytest.mark.parametrize(("figures", "kind"), WRONG)
def test_each_figure_beyond_its_limit_is_a_failure(figures: dict[str, Any], kind: str) -> None:
    (failure,) = tracking_failures({**GOOD, **figures}, RULES)
    assert (failure.kind, failure.reference, failure.provider) == (kind, "PyTorch", None)


@pytest.mark.parametrize("provider", ["wasm", "webgpu"])
@pytest.mark.parametrize(("figures", "kind"), WRONG)
def test_each_figure_beyond_its_limit_in_the_browser_is_a_failure_of_its_provider(
    figures: dict[str, Any], kind: str, provider: str
) -> None:
    tracked = {"wasm": {"tracking": GOOD}, provider: {"tracking": {**GOOD, **figures}}}
    (failure,) = browser_failures(in_browser(**tracked), BrowserCheck(), 1.0, RULES)
    assert (failure.kind, failure.reference, failure.provider) == (kind, "onnxruntime", provider)


def test_a_tracking_model_is_not_proven_by_its_images_only() -> None:
    report = in_browser(wasm={})
    assert browser_failures(report, BrowserCheck(), 1.0) == []
    with pytest.raises(KeyError, match="tracking"):
        browser_failures(report, BrowserCheck(), 1.0, RULES)


def test_zero_answers_prove_nothing() -> None:
    with pytest.raises(KeyError, match="answers"):
        tracking_failures({**GOOD, "answers": 0}, RULES)
    report = in_browser(wasm={"tracking": {**GOOD, "answers": 0}})
    with pytest.raises(KeyError, match="answers"):
        browser_failures(report, BrowserCheck(), 1.0, RULES)


def test_a_graph_that_wasm_refuses_is_the_only_failure() -> None:
    refused = {"words": "memory_attention on wasm: create its session", "graph": "memory_attention"}
    report = in_browser(wasm={"refused": refused, "tracking": {"frames": []}})
    (failure,) = browser_failures(report, BrowserCheck(), 1.0, RULES)
    assert (failure.kind, failure.graph) == ("refused", "memory_attention")


def test_the_numbers_of_a_smaller_variant_may_differ_but_must_be_finite() -> None:
    errors = {
        "score_error": "object scores",
        "pointer_error": "pointers",
        "iou_error": "predicted ious",
        "logit_error": "logits",
    }
    assert tracking_failures({**GOOD, **dict.fromkeys(errors, 9.0)}, LOOSE) == []
    for name, kind in errors.items():
        (failure,) = tracking_failures({**GOOD, name: None}, LOOSE)
        assert failure.kind == kind
        assert "differs by not a number, [fidelity] allows any number" in str(failure)


def answers() -> Answers:
    """Two objects on three frames; the second is absent on the last."""
    mask = np.zeros((4, 6), bool)
    mask[:2] = True
    pointer = np.arange(1, 5, dtype=np.float32)
    there = Answer(mask, 3.0, pointer, 0.9, 5.0)
    away = Answer(~mask & mask, -3.0, -pointer, 0.1, 1024.0)
    return {(0, f, n): away if (f, n) == (2, 2) else there for f in range(3) for n in (1, 2)}


def figures_of(*pairs: tuple[Answers, Answers]) -> dict[str, Any]:
    scripts = {str(number): pair for number, pair in enumerate(pairs)}
    return {"violations": [], **asdict(compare_answers(scripts))}


def test_equal_answers_have_no_differences() -> None:
    figures = figures_of((answers(), answers()))
    assert tracking_failures(figures, RULES) == []
    assert (figures["answers"], figures["expected"]) == (6, 6)
    assert figures["mask_iou"] == {"mean": 1.0, "worst": 1.0}
    errors = ("score_error", "pointer_error", "iou_error", "logit_error", "occlusion_flips")
    assert [figures[name] for name in errors] == [0] * 5
    (clip,) = figures["clips"]
    assert [each["frame"] for each in clip["by_frame"]] == [0, 1, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", list(answers()))
@pytest.mark.parametrize("field", ["score", "pointer", "predicted_iou", "magnitude"])
def test_an_answer_that_is_not_finite_fails_wherever_it_is(
    value: float, key: tuple[int, int, int], field: str
) -> None:
    """Python's ``max`` and ``min`` skip NaN unless it is first."""
    wrong = answers()
    pointer = wrong[key].pointer.copy()
    pointer[2] = value
    wrong[key] = wrong[key]._replace(**{field: pointer if field == "pointer" else value})
    kind = {
        "score": "object scores",
        "pointer": "pointers",
        "predicted_iou": "predicted ious",
        "magnitude": "worst iou",
    }[field]
    for pair in ((wrong, answers()), (answers(), wrong)):
        for clips in ([pair], [(answers(), answers()), pair], [pair, (answers(), answers())]):
            for rules in (RULES, LOOSE):
                assert kind in {each.kind for each in tracking_failures(figures_of(*clips), rules)}


def test_a_pointer_is_judged_relative_to_its_largest_number() -> None:
    moved = answers()
    last = moved[0, 2, 2]
    pointer = last.pointer.copy()
    pointer[0] += 4 * 2e-3
    moved[0, 2, 2] = last._replace(pointer=pointer)
    figures = figures_of((moved, answers()))
    assert figures["pointer_error"] == pytest.approx(2e-3, rel=1e-3)
    assert [each.kind for each in tracking_failures(figures, RULES)] == ["pointers"]


def test_pointers_of_different_widths_have_no_error_figure() -> None:
    short = {key: each._replace(pointer=each.pointer[:1]) for key, each in answers().items()}
    assert figures_of((short, answers()))["pointer_error"] is None


def test_an_object_that_only_one_side_finds_is_an_occlusion_flip() -> None:
    other = answers()
    other[0, 2, 2] = other[0, 2, 2]._replace(score=0.001)
    assert figures_of((other, answers()))["occlusion_flips"] == pytest.approx(1 / 6)


def test_a_missing_or_unexpected_answer_fails() -> None:
    fewer = answers()
    del fewer[0, 1, 1]
    other = {(1, *key[1:]): each for key, each in answers().items()}
    for pair in ((fewer, answers()), (answers(), fewer)):
        (failure,) = tracking_failures(figures_of(pair), RULES)
        assert (failure.kind, failure.found) == ("answers", len(pair[0]))
        assert "found" in str(failure)
    kinds = {each.kind for each in tracking_failures(figures_of((other, answers())), RULES)}
    assert kinds >= {"mean iou", "worst iou", "object scores", "pointers", "occlusion"}


def test_a_clip_without_answers_fails_beside_a_complete_one() -> None:
    assert tracking_failures(figures_of((answers(), answers()), ({}, answers())), RULES)


def test_nan_figures_are_shown_as_not_a_number_and_written_as_none() -> None:
    nothing = figures_of(({}, answers()))
    summary = tracking.summary_of(nothing)
    assert summary.startswith("IoU with SAM2VideoPredictor's masks not a number, worst not a num")
    proof = tracked(nothing, "PyTorch")
    assert proof is not None
    assert proof.mask_iou == Ious(None, None)
    assert proof.score_error is proof.pointer_error is proof.occlusion_flips is None
