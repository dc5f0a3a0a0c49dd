"""What a report recommends, which columns it has, and where its bars are."""

from __future__ import annotations

from typing import Any

import manifests
import pytest

from tasks.commands import report_figures as figures
from tasks.commands.report_figures import ModelFigures, VariantFigures
from tasks.proof import charts
from tasks.proof.manifest import BrowserProof, BrowserRules, ProviderProof
from tasks.proof.recommendation import Candidate, Choice, recommend, recommend_model

EVERYWHERE = frozenset({"wasm", "webgpu", "native"})


def candidate(
    name: str, mebibytes: int, proven: frozenset[str] = EVERYWHERE, **times: float
) -> Candidate:
    return Candidate(name, mebibytes << 20, proven, times)


def chosen(candidates: list[Candidate], provider: str = "wasm") -> Choice:
    return recommend(candidates)[provider]


# --- the recommendation ------------------------------------------------------------------------


def test_in_a_browser_the_precision_decides_among_the_proven_variants() -> None:
    candidates = [candidate("fp32", 16, wasm=700), candidate("q8", 5, wasm=800)]
    assert chosen(candidates).candidate.name == "q8"
    assert chosen(candidates, "webgpu").candidate.name == "fp32"


def test_a_variant_not_proven_on_a_provider_is_not_recommended_there() -> None:
    candidates = [candidate("q8", 5, frozenset({"native"})), candidate("fp16", 8)]
    assert chosen(candidates).candidate.name == "fp16"


def test_the_first_requested_variant_of_a_precision_is_recommended() -> None:
    candidates = [candidate("fp32.ort", 17), candidate("fp32", 16)]
    assert chosen(candidates).candidate.name == "fp32.ort"


def test_natively_the_smallest_of_the_fast_variants_is_recommended() -> None:
    candidates = [
        candidate("fp32", 16, native=100),
        candidate("fp16", 8, native=124),
        candidate("q4", 4, native=126),
    ]
    assert chosen(candidates, "native").candidate.name == "fp16"


def test_without_times_the_smallest_download_is_recommended() -> None:
    candidates = [candidate("fp32", 16), candidate("q4", 4)]
    assert chosen(candidates, "native").candidate.name == "q4"


def test_a_variant_without_a_time_does_not_count_as_fast() -> None:
    candidates = [candidate("fp32", 16, native=800), candidate("q4", 4)]
    assert chosen(candidates, "native").candidate.name == "fp32"


def test_a_provider_on_which_nothing_is_proven_has_no_recommendation() -> None:
    assert recommend([candidate("fp32", 16, frozenset({"native"}))]).keys() == {"native"}


def test_a_recommendation_gives_its_reasons_in_figures() -> None:
    times = {"wasm": 600, "native": 600}
    candidates = [candidate("fp32", 16, wasm=500, native=500), candidate("q8", 5, **times)]
    assert chosen(candidates).why == (
        "WASM multiplies matrices of 8 bits fastest; 5.0 MiB to download; "
        "600 ms for an image, 1.20 times the fastest of 2."
    )
    assert chosen(candidates, "native").why == (
        "the smallest download within 1.25 times the fastest; 5.0 MiB to download; "
        "600 ms for an image, 1.20 times the fastest of 2."
    )


PROOF = BrowserProof(
    "Chromium 1",
    "onnxruntime-web 1",
    BrowserRules(0.999, 1e-3, 1e-2, 1e-3),
    {"wasm": ProviderProof(True), "webgpu": ProviderProof(False, "refused")},
)


def row(name: str, size: int = 1 << 20, reason: str | None = None, **values: Any) -> VariantFigures:
    """A variant that is proven on WASM; with a ``reason`` it is not deployed."""
    entry = manifests.variant(name, deployed=reason is None, reason=reason, browser=PROOF)
    return VariantFigures(name, {}, [size], entry=entry, **values)


def test_a_variant_that_is_not_deployed_is_not_recommended() -> None:
    rows = [row("fp32"), row("q8", size=1, reason="too far")]
    recommended = ModelFigures("tiny", rows, {}).recommended
    assert {name: each.candidate.name for name, each in recommended.items()} == {
        "wasm": "fp32",
        "native": "fp32",
    }


def test_a_variant_shows_whether_it_is_deployed_where_it_is_unproven_and_why_not() -> None:
    assert (row("fp32").state, row("fp32").unproven) == ("deployed", ["WebGPU"])
    left_out = row("q8", reason="too far")
    assert (left_out.state, left_out.unproven) == ("not deployed: too far", [])
    unknown = VariantFigures("q4", {}, [1])
    assert unknown.state == "not deployed: not configured, or its deploy has not run"


# --- among models --------------------------------------------------------------------------------


def test_among_models_the_smallest_of_the_fast_ones_is_recommended() -> None:
    models = {
        "large": [candidate("q8", 220, wasm=60_000)],
        "tiny": [candidate("q8", 40, wasm=6000)],
        "edgetam": [candidate("fp16", 14, wasm=1000)],
    }
    wasm = recommend_model(models)["wasm"]
    assert wasm.candidate.name == "edgetam, fp16"
    assert wasm.why == (
        "the smallest download within 1.25 times the fastest; 14.0 MiB to download; "
        "1.0 s for an image, the fastest of 3."
    )


def test_a_fast_model_that_misses_the_true_masks_is_not_recommended() -> None:
    models = {
        "good": [candidate("q8", 40, wasm=6000)._replace(truth=0.9)],
        "bad": [candidate("q8", 14, wasm=1000)._replace(truth=0.7)],
    }
    wasm = recommend_model(models)["wasm"]
    assert wasm.candidate.name == "good, q8"
    assert "among those whose masks are within 0.02 of the best" in wasm.why


def test_a_fast_model_whose_images_are_too_small_for_its_weights_is_not_recommended() -> None:
    models = {
        "tiny": [candidate("q8", 40, wasm=6000)],
        "tiny at 256": [candidate("q8", 40, wasm=500)._replace(native_iou=0.6)],
    }
    wasm = recommend_model(models)["wasm"]
    assert wasm.candidate.name == "tiny, q8"
    assert "among those whose masks match PyTorch's" in wasm.why


def test_true_masks_exclude_no_model_unless_every_model_has_them() -> None:
    models = {
        "known": [candidate("q8", 40, wasm=6000)._replace(truth=0.9)],
        "unknown": [candidate("q8", 14, wasm=1000)],
    }
    assert recommend_model(models)["wasm"].candidate.name == "unknown, q8"


def timed(milliseconds: float) -> dict[str, Any]:
    return {"wasm": {"encoder_run_ms": [milliseconds]}}


def test_deployed_variants_are_ranked_by_time_on_wasm_and_then_by_size() -> None:
    models = [
        ModelFigures("a", [row("fp32", times=timed(9)), row("q8", size=5), row("q4", size=3)], {}),
        ModelFigures("b", [row("fp32", times=timed(4)), row("q8", reason="too far")], {}),
    ]
    ranked = [(each.model, each.variant) for each in figures.ranking(models)]
    assert ranked == [("b", "fp32"), ("a", "fp32"), ("a", "q4"), ("a", "q8")]


def test_another_image_size_counts_as_a_difference_from_pytorch() -> None:
    native = {"mask_iou": {"mean": 0.9}}
    near = row("q8", fidelity={"mask_iou": {"mean": 0.99}})
    (fp32, q8) = figures.ranking([ModelFigures("small", [row("fp32"), near], {"native": native})])
    assert fp32.like_pytorch == q8.like_pytorch == 0.9


def test_true_masks_of_different_drawings_are_not_compared() -> None:
    truths = [
        {"truth": {"iou": {"1 click": iou}}, "options": {"truth": f"drawn:{iou}"}}
        for iou in (0.9, 0.5)
    ]
    models = [
        ModelFigures("a", [row("fp32", times=timed(9))], truths[0]),
        ModelFigures("b", [row("fp32", times=timed(4))], truths[1]),
    ]
    assert figures.best(models)["wasm"].candidate.name == "b, fp32"


# --- columns, pictures, charts -----------------------------------------------------------------


def test_a_column_is_shown_when_any_variant_has_a_figure() -> None:
    times = {"wasm": {"encoder_run_ms": [5.0]}, "webgpu": {"error": "refused"}}
    assert ModelFigures("tiny", [row("fp32"), row("q8", times=times)], {}).columns == {"wasm"}


@pytest.mark.parametrize(
    ("fidelity", "seen"),
    [
        (None, False),
        ({"lowest": None}, False),
        ({"lowest": {"pixels": 0}}, False),
        ({"lowest": {"pixels": 3}}, True),
    ],
)
def test_masks_are_shown_only_where_they_differ(fidelity: Any, seen: bool) -> None:
    assert figures.differs(fidelity) is seen


def test_the_chart_has_bars_for_measured_values_only() -> None:
    assert [each.title for each in figures.charts_of([row("fp32")])] == ["Download"]


def test_bars_are_proportional_to_their_values_and_do_not_touch_their_texts() -> None:
    drawn = charts.chart("t", {"a": [10], "b": [4, 5, 20]}, str)
    a, b = drawn.bars
    assert a.width == pytest.approx(2 * b.width)
    assert b.high == pytest.approx(2 * a.width)
    assert drawn.left + b.high < drawn.figures


def test_each_bar_has_its_own_row() -> None:
    drawn = charts.chart("t", {str(n): [n] for n in range(10)}, str)
    assert [each.y for each in drawn.bars] == list(range(0, drawn.height, drawn.height // 10))


def test_a_bar_for_zero_has_no_length() -> None:
    assert charts.chart("t", {"a": [0.0]}, str).bars[0].width == 0


def test_frames_are_listed_in_tracking_order_without_the_prompts() -> None:
    by_frame = [
        {"step": 0, "frame": 1, "iou": 0.5},
        {"step": 1, "frame": 1, "iou": 1.0},
        {"step": 1, "frame": 0, "iou": 0.9},
        {"step": 2, "frame": 1, "iou": 1.0},
        {"step": 2, "frame": 2, "iou": 0.8},
        {"step": 2, "frame": 3, "iou": None},
    ]
    assert figures.tracked_ious(by_frame) == [1.0, 0.9, 1.0, 0.8, 0.0]


def tracked(**clips: list[float]) -> dict[str, Any]:
    """A report of tracked objects: the IoUs of each frame, by clip."""
    return {
        "clips": [
            {"name": name, "by_frame": [{"step": 0, "frame": n, "iou": iou} for n, iou in ious]}
            for name, ious in ((name, enumerate(ious)) for name, ious in clips.items())
        ]
    }


def test_each_tracking_variant_has_a_line_in_the_chart_of_each_clip() -> None:
    rows = [
        row("fp32", tracking=tracked(stack=[1.0, 1.0], lapse=[1.0, 1.0])),
        row("fp16"),
        row("q8", tracking=tracked(stack=[1.0, 0.97], lapse=[1.0, 1.0])),
    ]
    stack, lapse = figures.drift_of(rows)
    assert (stack.title, lapse.title) == ("stack", "lapse")
    assert [line.name for line in stack.lines] == ["fp32", "q8"]
    assert figures.drift_of([row("fp32")]) == []


def test_line_charts_range_from_one_to_a_round_floor_below_the_lowest_value() -> None:
    drawn = charts.line_chart("t", {"a": [1.0, 0.97], "b": [1.0, 1.0]})
    assert (drawn.floor, drawn.steps) == (0.9, 2)
    a, b = ([tuple(map(float, p.split(","))) for p in line.points.split()] for line in drawn.lines)
    assert a[0] == b[0]
    assert b[1][1] < a[1][1] < drawn.base
    assert {line.color for line in drawn.lines} == {charts.STROKES[0][0], charts.STROKES[1][0]}
