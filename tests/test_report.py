"""What a report recommends, which columns it has, and where its bars are."""

from __future__ import annotations

from typing import Any

import pytest

from tasks import report
from tasks.proof import charts
from tasks.proof.recommendation import Candidate, Recommendation, recommend

EVERYWHERE = frozenset({"wasm", "webgpu", "native"})


def candidate(
    name: str, mebibytes: int, proven: frozenset[str] = EVERYWHERE, **times: float
) -> Candidate:
    return Candidate(name, mebibytes << 20, proven, times)


def chosen(
    candidates: list[Candidate], provider: str = "wasm", **prefer: str | None
) -> Recommendation:
    (found,) = [each for each in recommend(candidates, prefer) if each.provider == provider]
    return found


# --- the recommendation ------------------------------------------------------------------------


def test_what_the_manifest_prefers_is_recommended_for_clients_load_that() -> None:
    candidates = [candidate("fp32", 16, wasm=800), candidate("q8", 5, wasm=700)]
    assert chosen(candidates, wasm="fp32").variant == "fp32"


def test_what_the_manifest_prefers_and_was_not_proven_is_not_recommended() -> None:
    candidates = [candidate("q8", 5, frozenset({"native"})), candidate("fp16", 8)]
    assert chosen(candidates, wasm="q8").variant == "fp16"


def test_otherwise_it_is_the_smallest_download_that_is_nearly_as_fast_as_the_fastest() -> None:
    candidates = [
        candidate("fp32", 16, native=100),
        candidate("fp16", 8, native=124),
        candidate("q4", 4, native=126),
    ]
    assert chosen(candidates, "native").variant == "fp16"


def test_without_times_it_is_the_smallest_download() -> None:
    assert chosen([candidate("fp32", 16), candidate("q4", 4)]).variant == "q4"


def test_a_variant_without_a_time_is_not_called_fast() -> None:
    candidates = [candidate("fp32", 16, wasm=800), candidate("q4", 4)]
    assert chosen(candidates).variant == "fp32"


def test_a_provider_on_which_nothing_is_proven_has_no_recommendation() -> None:
    found = recommend([candidate("fp32", 16, frozenset({"native"}))], {})
    assert [each.provider for each in found] == ["native"]


def test_a_recommendation_says_why_in_figures() -> None:
    candidates = [candidate("fp32", 16, wasm=500), candidate("q8", 5, wasm=600)]
    assert chosen(candidates, wasm="q8").why == (
        "the manifest prefers it on WASM; 5.0 MiB to download; "
        "600 ms for an image, 1.20 times the fastest of 2."
    )
    assert chosen(candidates).why == (
        "the smallest download within 1.25 times the fastest; 5.0 MiB to download; "
        "600 ms for an image, 1.20 times the fastest of 2."
    )


def row(name: str, **values: Any) -> dict[str, Any]:
    told = {
        "size": 1 << 20,
        "state": "deployed",
        "proven": ["native", "wasm"],
        "times": {"native": None, "wasm": None, "webgpu": None},
        "fidelity": None,
        "nodes": None,
        "page_memory": None,
        "browser": {"wasm": None, "webgpu": None},
    }
    return {"name": name, **told, **values}


def test_what_is_not_deployed_is_not_recommended() -> None:
    rows = [row("fp32"), row("q4", size=1, state="not deployed: too far")]
    assert {each["variant"] for each in report.recommended(rows, {"wasm": "q4"})} == {"fp32"}


# --- columns, pictures, charts -----------------------------------------------------------------


def test_a_column_is_there_when_one_variant_has_a_figure() -> None:
    timed = {"native": None, "wasm": {"encoder_run_ms": [5.0]}, "webgpu": {"error": "refused"}}
    found = report.columns([row("fp32"), row("q8", times=timed)])
    assert [name for name, shown in found.items() if shown] == ["wasm"]


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
    assert report.differs(row("q8", fidelity=fidelity)) is seen


def test_bars_are_drawn_of_what_was_measured_only() -> None:
    assert [each.title for each in report.charts_of([row("fp32")])] == ["Download"]


def test_bars_are_as_long_as_their_values_and_keep_clear_of_their_texts() -> None:
    drawn = charts.chart("t", [charts.Value("a", 10, "10"), charts.Value("b", 5, "5", 4, 20)])
    a, b = drawn.bars
    assert a.width == pytest.approx(2 * b.width)
    assert b.high is not None
    assert b.high == pytest.approx(2 * a.width)
    assert drawn.left + b.high < drawn.figures


def test_each_bar_has_a_row_of_its_own() -> None:
    drawn = charts.chart("t", [charts.Value(str(n), n, "") for n in range(10)])
    assert [each.y for each in drawn.bars] == list(range(0, drawn.height, drawn.height // 10))


def test_bars_of_nothing_have_no_length() -> None:
    assert charts.chart("t", [charts.Value("a", 0.0, "0")]).bars[0].width == 0


def test_a_changed_size_is_told_in_mebibytes() -> None:
    before, now = (
        [{"name": "m", "variants": [row("q8", size=size)]}] for size in (1 << 20, 3 << 20)
    )
    assert report.changes(before, now) == ["m q8: size was 1.0 MiB, is 3.0 MiB"]
