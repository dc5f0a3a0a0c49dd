"""Compares one prompt a run with many a run over one embedding, and three clients with one.

    uv run python benchmarks/prompts.py [--rounds 5]

Prints a Markdown table of medians over rounds in which the alternatives take turns, each
measurement in a new process (or page), on tiny with synthetic weights: natively in onnxruntime, and
in a browser on WASM, with two threads each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measure_graph import high_water, start_onnxruntime
from pipeline import make_checkpoint, run

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tasks.config.checks import BrowserCheck
from tasks.running import child
from tasks.web import browsers, chromium, packages
from tasks.web.server import application, serving

MANY = 64
THREADS = 2
MIB = 2**20

# The page creates a session and runs all prompts, `atOnce` a run; the first pass is not counted.
PAGE = """
async ({ count, atOnce, threads }) => {
  const ort = await import('/onnxruntime-web/ort.wasm.min.mjs')
  Object.assign(ort.env.wasm, { numThreads: threads })
  const file = new Uint8Array(await (await fetch('/model/decoder.onnx')).arrayBuffer())
  const session = await ort.InferenceSession.create(file, { executionProviders: ['wasm'] })
  const noise = (dims) => new ort.Tensor('float32', Float32Array.from(
    { length: dims.reduce((product, size) => product * size) }, () => Math.random() - 0.5), dims)
  const features = {
    image_embed: noise([1, 256, 64, 64]),
    high_res_feats_0: noise([1, 32, 256, 256]),
    high_res_feats_1: noise([1, 64, 128, 128]),
    mask_input: new ort.Tensor('float32', new Float32Array(65536), [1, 1, 256, 256]),
    has_mask_input: new ort.Tensor('float32', [0], [1]),
  }
  const prompt = {
    point_coords: new ort.Tensor('float32', new Float32Array(2 * atOnce).fill(300), [atOnce, 1, 2]),
    point_labels: new ort.Tensor('float32', new Float32Array(atOnce).fill(1), [atOnce, 1]),
  }
  const all = async () => {
    for (let done = 0; done < count; done += atOnce) await session.run({ ...features, ...prompt })
  }
  await all()
  const times = []
  for (let turn = 0; turn < (count > 1 ? 1 : 15); turn++) {
    const start = performance.now()
    await all()
    times.push(performance.now() - start)
  }
  return times.sort((a, b) => a - b)[times.length >> 1]
}
"""


def feeds(at_once: int) -> dict[str, Any]:
    """One click a prompt, over random features."""
    random = np.random.default_rng(0)

    def noise(*shape: int) -> Any:
        return random.standard_normal(shape).astype(np.float32)

    return {
        "image_embed": noise(1, 256, 64, 64),
        "high_res_feats_0": noise(1, 32, 256, 256),
        "high_res_feats_1": noise(1, 64, 128, 128),
        "point_coords": np.full((at_once, 1, 2), 300, np.float32),
        "point_labels": np.ones((at_once, 1), np.float32),
        "mask_input": np.zeros((1, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }


def measure_here(graph: str, count: int, at_once: int, pattern: bool) -> None:
    """Print the milliseconds for ``count`` prompts and the peak memory of this process, as JSON.

    :param pattern: whether onnxruntime plans memory from an earlier run's use, as by default.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.enable_mem_pattern = pattern
    start_onnxruntime()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    inputs = feeds(at_once)
    times = []
    for _ in range(4 if count > 1 else 30):
        start = time.perf_counter()
        for _ in range(count // at_once):
            session.run(None, inputs)
        times.append(1000 * (time.perf_counter() - start))
    print(json.dumps({"ms": statistics.median(times[1:]), "peak": high_water()}))


def natively(graph: Path, count: int, at_once: int, pattern: bool = True) -> dict[str, float]:
    """One measurement in a new process."""
    job = map(str, (graph, count, at_once, int(pattern)))
    command = [sys.executable, __file__, "--measure", *job]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def in_page(graph: Path, count: int, at_once: int, executable: str | None) -> dict[str, float]:
    """One measurement in a new browser."""
    folders = {"/onnxruntime-web": packages.RUNTIME / "dist", "/": packages.PAGE}
    app = application(folders, files={"/model/decoder.onnx": graph})
    with serving(app) as address, chromium.launched(executable, webgpu=False) as browser:
        page = browser.new_page()
        page.goto(f"{address}/proof/check.html")
        job = {"count": count, "atOnce": at_once, "threads": THREADS}
        milliseconds = page.evaluate(PAGE, job)
        session = browser.new_browser_cdp_session()
        processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
        renderers = [each["id"] for each in processes if each["type"] == "renderer"]
        peak = max(child.peak_memory_of(each) or 0 for each in renderers)
    return {"ms": milliseconds, "peak": peak}


def compare(name: str, ours: Any, base: Any, rounds: int) -> str:
    """A row: both medians, the median ratio over the rounds, and our peak memory."""
    pairs = [(ours(), base()) for _ in range(rounds)]
    ratio = statistics.median(one["ms"] / other["ms"] for one, other in pairs)
    times = [statistics.median(pair[place]["ms"] for pair in pairs) for place in (0, 1)]
    peak = max(one["peak"] for one, _ in pairs) / MIB
    return f"| {name} | {times[0]:.1f} | {times[1]:.1f} | {ratio:.2f} × | {peak:.0f} |"


def three_clients(folder: Path, project: Any, checkpoint: Path, rounds: int) -> str:
    """A row that compares exporting and simplifying for three clients with doing so for one."""
    model = f'model_type = "sam2_hiera_tiny"\nurl = "{checkpoint}"\nbrowser = false\n'
    clients = {
        "three": 'clients = ["samexporter", "nimbusimage", "transformers.js"]\n',
        "one": 'client = "samexporter"\n',
    }
    text = "".join(
        f'[models.{name}]\n{model}folder = "sam2_{name}"\n{keys}' for name, keys in clients.items()
    )
    project.configure(text)
    project.build("checkpoint")
    pairs = []
    for _ in range(rounds):
        pair = []
        for name in clients:
            project.doit("forget", f"export:{name}", f"simplify:{name}")
            command = project.command(f"simplify:{name}")
            pair.append(run(command, folder, project.environment, project.root).seconds)
        pairs.append(pair)
    ratio = statistics.median(three / one for three, one in pairs)
    times = [statistics.median(pair[place] for pair in pairs) for place in (0, 1)]
    return (
        f"| export and simplify for three clients, against one (s) | {times[0]:.1f} | "
        f"{times[1]:.1f} | {ratio:.2f} × | |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        graph, *numbers = options.measure
        count, at_once, pattern = map(int, numbers)
        measure_here(graph, count, at_once, bool(pattern))
        return
    browser = browsers.find(BrowserCheck())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        project, checkpoint = make_checkpoint(folder, "tiny")
        model = f'model_type = "sam2_hiera_tiny"\nurl = "{checkpoint}"\nbrowser = false\n'
        project.configure(
            "".join(
                f'[models.{prompts}]\n{model}folder = "{prompts}"\nprompts = "{prompts}"\n'
                for prompts in ("one", "many")
            )
        )
        assert project.build("simplify").status == 0
        one, many = (project.root / f"build/models/{name}/decoder.onnx" for name in ("one", "many"))
        nodes = {path.parent.name: len(onnx.load(path).graph.node) for path in (one, many)}
        print(f"Nodes of the decoder: {nodes}\n")
        print("| tiny's decoder | ms | against, ms | ratio | peak, MiB |\n|---|---|---|---|---|")
        places: dict[str, Any] = {"native": natively}
        if not browser.missing:
            places["WASM"] = lambda *job: in_page(*job, browser.executable)
        for place, measure in places.items():
            rows = (
                (f"one prompt, `many` against `one`, {place}", (many, 1, 1), (one, 1, 1)),
                (
                    f"{MANY} prompts in one run, against one by one, {place}",
                    (many, MANY, MANY),
                    (many, MANY, 1),
                ),
            )
            for name, ours, base in rows:
                row = compare(
                    name,
                    lambda job=ours, measure=measure: measure(*job),
                    lambda job=base, measure=measure: measure(*job),
                    options.rounds,
                )
                print(row, flush=True)
        without = f"{MANY} prompts in one run, without a memory pattern against with one, native"
        job = many, MANY, MANY
        row = compare(
            without, lambda: natively(*job, False), lambda: natively(*job, True), options.rounds
        )
        print(row, flush=True)
        print(three_clients(folder, project, checkpoint, min(3, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
