"""Compares our graphs in a real browser with samexporter's after onnxsim, from one checkpoint.

    uv run python benchmarks/browser.py [--model tiny] [--rounds 5]

Prints a Markdown table of medians: WASM with two threads, a new browser for each measurement, the
graphs taking turns, sessions created in the page's order (decoder first). Then prints the time
from a click to its mask on the page, against the decoder's own time. Needs Chromium and the npm
packages of `web/`. Writes only to a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from graphs import Graphs, baseline, ours, row
from pipeline import make_checkpoint
from playwright.sync_api import expect, sync_playwright

from tasks.clients.registry import CLIENTS
from tasks.commands import serve
from tasks.config.checks import BrowserCheck
from tasks.config.parse import load
from tasks.inference.prompts import PROMPTS, natural_image
from tasks.inference.sessions import PromptedImage
from tasks.web import browsers, chromium
from tasks.web.image_page import ImageRun
from tasks.web.server import serving

THREADS = 2


def measure(graphs: Graphs, like: Graphs, executable: str | None, runs: int) -> dict[str, Any]:
    """Run both graphs once in a browser, with inputs of the shapes that ``like`` has."""
    client = CLIENTS["samexporter"]
    shapes = {part: str(path) for part, path in like.items()}
    paths = {part: str(path) for part, path in graphs.items()}
    names = {part: f"{part}.onnx" for part in graphs}
    model = chromium.ServedModel(client, "multi", "one", "fp32", paths, names, tensors_from=shapes)
    image = natural_image(model.size)
    with (
        tempfile.TemporaryDirectory() as scratch,
        redirect_stdout(sys.stderr),  # the page's progress
        chromium.served(model, image, scratch) as site,
        chromium.launched(executable, webgpu=False) as browser,
    ):
        try:
            with chromium.blank_page(browser) as page:
                run = ImageRun(page, site, model, PromptedImage(image, PROMPTS, {}), THREADS)
                run.open()
                run.wasm(runs, 5)
        except chromium.Refused as refusal:
            return {"error": str(refusal)}
    wasm = run.report["providers"]["wasm"]
    return {
        "encoder: session creation, ms": wasm["encoder"]["create_ms"],
        "encoder: run, ms": statistics.median(wasm["encoder"]["run_ms"]),
        "decoder: session creation, ms": wasm["decoder"]["create_ms"],
        "decoder: run, ms": statistics.median(wasm["decoder"]["run_ms"]),
        "peak memory of the page, MiB": run.report["memory"].get("renderer", 0) / 2**20,
    }


def click(config_path: Path, executable: str | None, clicks: int) -> list[tuple[float, float]]:
    """Milliseconds from each click to its mask on the page, and the decoder's share of them."""
    config = load(config_path)
    with serving(serve.application(config)) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        page = browser.new_page()
        page.goto(address)
        page.get_by_role("button", name="Sample").click()
        expect(page.locator("#status")).to_contain_text("Encoded in", timeout=120_000)
        area = page.locator("#overlay").bounding_box()
        assert area
        for number in range(clicks):
            page.get_by_role("button", name="Clear").click(force=True)
            place = {"x": area["width"] * (number + 1) / (clicks + 1), "y": area["height"] / 2}
            page.locator("#overlay").click(position=place)
            expect(page.locator("#status")).to_contain_text("predicted IoU", timeout=60_000)
        times: list[tuple[float, float]] = page.evaluate(
            "performance.getEntriesByName('prompt to mask')"
            ".map((each) => [each.duration, each.detail.decoder])"
        )
        browser.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=("tiny", "small"), default="tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clicks", type=int, default=20)
    arguments = parser.parse_args()
    browser = browsers.find(BrowserCheck())
    if browser.missing:
        sys.exit(f"This benchmark needs a browser: {browser.missing}")
    columns = ["samexporter + onnxsim", "ours"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        project, checkpoint = make_checkpoint(folder, arguments.model)
        raw, simplified, _ = baseline(folder, checkpoint, arguments.model, 16 << 30)
        own, _ = ours(folder / "plain", checkpoint, project, "plain")
        both = dict(zip(columns, (simplified, own), strict=True))

        results: dict[str, list[dict[str, Any]]] = {name: [] for name in columns}
        for _ in range(arguments.rounds):
            for name, graphs in both.items():
                result = measure(
                    in_one_folder(graphs, folder / "in" / name), own, browser.executable, 1
                )
                if "error" in result:
                    sys.exit(f"{name}: {result['error']}")
                results[name].append(result)
        print(f"| {arguments.model}, WASM, {THREADS} threads | {' | '.join(columns)} | ratio |")
        print("|---" * (len(columns) + 2) + "|")
        for figure in results["ours"][0]:
            values = {
                name: statistics.median(each[figure] for each in runs)
                for name, runs in results.items()
            }
            form = "{:.1f}" if figure.startswith("decoder: run") else "{:.0f}"
            print(row(figure, values, columns, form), flush=True)

        unsimplified = measure(in_one_folder(raw, folder / "in/raw"), own, browser.executable, 1)
        print(f"\nsamexporter's own output: {unsimplified.get('error', 'loads')}\n", flush=True)

        built = project.build(f"deploy:{arguments.model}")
        assert built.status == 0, built.output
        text = (project.root / "config/models.toml").read_text()
        deployed = f'deploy = "{project.root / "public/onnx-models/sam"}"\n'
        (folder / "served.toml").write_text(text.replace("[models.", deployed + "[models.", 1))
        times = click(folder / "served.toml", browser.executable, arguments.clicks)
        mask, decoder = (statistics.median(each) for each in zip(*times, strict=True))
        ratio = statistics.median(whole / part for whole, part in times)
        print(
            f"Page: {mask:.0f} ms from a click to its mask, {decoder:.0f} ms of it the decoder: "
            f"{ratio:.2f} × (median of {len(times)} clicks)"
        )
        print(json.dumps(results), file=sys.stderr)


def in_one_folder(graphs: Graphs, folder: Path) -> Graphs:
    """Hard links to the graphs, with the names of the deployed files."""
    folder.mkdir(parents=True, exist_ok=True)
    links = {part: folder / f"{part}.onnx" for part in graphs}
    for part, path in graphs.items():
        if not links[part].exists():
            links[part].hardlink_to(path)
    return links


if __name__ == "__main__":
    main()
