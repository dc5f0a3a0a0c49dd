"""What is found wrong in figures of tracking, against PyTorch and in the browser."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.config.schema import BrowserCheck
from tasks.proof.judgement import TrackingRules, browser_failures, tracking_failures

RULES = TrackingRules("[tracking]", "mask_iou", mask_iou=0.999, worst=0.99, scores=1e-3, flips=0.0)
GOOD: dict[str, Any] = {
    "violations": [],
    "answers": 27,
    "mask_iou": {"mean": 1.0, "worst": 1.0},
    "score_error": 1e-5,
    "occlusion_flips": 0.0,
}
WRONG = [
    ({"mask_iou": {"mean": 0.9985, "worst": 0.995}}, "mean iou"),
    ({"mask_iou": {"mean": 0.9999, "worst": 0.98}}, "worst iou"),
    ({"mask_iou": {"mean": float("nan"), "worst": 1.0}}, "mean iou"),
    ({"score_error": 2e-3}, "object scores"),
    ({"score_error": float("nan")}, "object scores"),
    ({"occlusion_flips": 1 / 27}, "occlusion"),
]


def in_browser(**providers: dict[str, Any]) -> dict[str, Any]:
    """A browser's report whose images are as they should be."""
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
def test_in_the_browser_too_and_the_provider_is_named(
    figures: dict[str, Any], kind: str, provider: str
) -> None:
    tracked = {"wasm": {"tracking": GOOD}, provider: {"tracking": {**GOOD, **figures}}}
    (failure,) = browser_failures(in_browser(**tracked), BrowserCheck(), 1.0, RULES)
    assert (failure.kind, failure.reference, failure.provider) == (kind, "onnxruntime", provider)


def test_a_model_that_tracks_is_not_proven_by_its_images_alone() -> None:
    report = in_browser(wasm={})
    assert browser_failures(report, BrowserCheck(), 1.0) == []
    with pytest.raises(KeyError, match="tracking"):
        browser_failures(report, BrowserCheck(), 1.0, RULES)


def test_nothing_that_was_answered_proves_nothing() -> None:
    with pytest.raises(KeyError, match="answers"):
        tracking_failures({**GOOD, "answers": 0}, RULES)
    report = in_browser(wasm={"tracking": {**GOOD, "answers": 0}})
    with pytest.raises(KeyError, match="answers"):
        browser_failures(report, BrowserCheck(), 1.0, RULES)


def test_a_graph_that_wasm_refuses_is_the_failure() -> None:
    refused = {"words": "memory_attention on wasm: create its session", "graph": "memory_attention"}
    report = in_browser(wasm={"refused": refused, "tracking": {"frames": []}})
    (failure,) = browser_failures(report, BrowserCheck(), 1.0, RULES)
    assert (failure.kind, failure.graph) == ("refused", "memory_attention")
