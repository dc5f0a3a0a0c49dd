"""Compares our graphs with those of samexporter's command and onnxsim, from one checkpoint.

    uv run python benchmarks/graphs.py [--model tiny|small|base_plus|large] [--rounds 5]

Prints a Markdown table of medians. Each measurement runs in a new process, the graphs taking turns.
samexporter's command is killed at --memory-limit GiB. Writes only to a temporary folder.
benchmarks/browser.py does the same in a browser.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
from pipeline import Run, make_checkpoint, run

HERE = Path(__file__).resolve().parent
SHAPE_OPERATORS = {"Shape", "Range", "Mod", "ConstantOfShape", "If", "Loop", "Tile", "Size"}
MIB = 2**20

Graphs = dict[str, Path]  # "encoder" and "decoder"
Figures = dict[str, float]


def baseline(folder: Path, checkpoint: Path, model: str, limit: int) -> tuple[Graphs, Graphs, Any]:
    """Run samexporter's command, then onnxsim's.

    :returns: the raw graphs, the simplified ones, and a `Run` with the time and the peak memory, or
        a text if the export was killed.
    """
    raw = {name: folder / f"{name}.onnx" for name in ("encoder", "decoder")}
    export = [sys.executable, "-m", "samexporter.export_sam2", "--checkpoint", str(checkpoint)]
    export += ["--output_encoder", str(raw["encoder"]), "--output_decoder", str(raw["decoder"])]
    exported = run([*export, "--model_type", f"sam2_hiera_{model}"], folder, limit=limit)
    if exported is None:
        return {}, {}, f"killed at {limit / 2**30:.0f} GiB"
    onnxsim = str(Path(sys.executable).parent / "onnxsim")
    simplified, steps = {}, [exported]
    for name, path in raw.items():
        simplified[name] = folder / f"{name}.sim.onnx"
        one_file = ["--external-data-threshold", "1.9GB"]  # the default splits large graphs
        steps.append(run([onnxsim, *one_file, str(path), str(simplified[name])], folder))
    return raw, simplified, Run(sum(s.seconds for s in steps), max(s.peak for s in steps))


def ours(folder: Path, checkpoint: Path, project: Any, attention: str) -> tuple[Graphs, Run]:
    """Our graphs from the same checkpoint, by `doit simplify`."""
    name = project.root.name
    project.configure(
        f'[build]\ndir = "{folder}"\n[models.{name}]\nmodel_type = "sam2_hiera_{name}"\n'
        f'url = "{checkpoint}"\nattention = "{attention}"\nbrowser = false\n'
    )
    fetched = project.build(f"checkpoint:{name}")
    assert fetched.status == 0, fetched.output
    built = run(
        [*project.command(f"simplify:{name}")], project.root, project.environment, project.root
    )
    records = json.loads((folder / "state/doit.json").read_text())
    stages = (records[f"{stage}:{name}"]["_values_:"] for stage in ("export", "simplify"))
    built = Run(built.seconds, max(stage["peak_memory"] for stage in stages))
    return {each: folder / f"models/{name}/{each}.onnx" for each in ("encoder", "decoder")}, built


def static(path: Path) -> Figures:
    """The figures of a graph that need no run."""
    model = onnx.load(path)
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    for node in model.graph.node:
        weights += sum(len(each.t.raw_data) for each in node.attribute if each.HasField("t"))
    size = path.stat().st_size + sum(
        p.stat().st_size for p in path.parent.glob(path.name + ".data")
    )
    return {
        "nodes": len(model.graph.node),
        "shape operators": sum(node.op_type in SHAPE_OPERATORS for node in model.graph.node),
        "file, MiB": size / MIB,
        "file to its weights": size / weights,
    }


def measured(command: list[str]) -> dict[str, Any]:
    """The JSON in the last line that a measuring process prints."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip() or "no output").splitlines()[-1]}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def native(path: Path, runs: int) -> dict[str, Any]:
    """One measurement in onnxruntime."""
    return measured([sys.executable, str(HERE / "measure_graph.py"), str(path), str(runs)])


def in_turns(graphs: dict[str, Path], measure: Any, rounds: int) -> dict[str, dict[str, Any]]:
    """For each graph the medians of its figures, or its error."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in graphs}
    for _ in range(rounds):
        for name, path in graphs.items():
            if not any("error" in result for result in results[name]):
                results[name].append(measure(path))
    return {
        name: runs[-1]
        if "error" in runs[-1]
        else {key: statistics.median(each[key] for each in runs) for key in runs[0]}
        for name, runs in results.items()
    }


def row(label: str, values: dict[str, Any], columns: list[str], form: str = "{:.2f}") -> str:
    """A table row; the last column is our value divided by samexporter's."""
    cells = []
    for column in columns:
        value = values.get(column, "")
        cells.append(form.format(value) if isinstance(value, int | float) else str(value))
    base, own = values.get(columns[0]), values.get("ours")
    ratio = ""
    if isinstance(base, int | float) and isinstance(own, int | float) and base and own:
        ratio = f"{own / base:.2f}"
    return f"| {label} | " + " | ".join(cells) + f" | {ratio} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=("tiny", "small", "base_plus", "large"), default="tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-limit", type=float, default=16, metavar="GIB")
    arguments = parser.parse_args()
    columns = ["samexporter", "+ onnxsim", "ours", "ours, fused"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        project, checkpoint = make_checkpoint(folder, arguments.model)
        limit = int(arguments.memory_limit * 2**30)
        raw, simplified, base = baseline(folder, checkpoint, arguments.model, limit)
        plain, plain_run = ours(folder / "plain", checkpoint, project, "plain")
        fused, _ = ours(folder / "fused", checkpoint, project, "fused")
        all_graphs = dict(zip(columns, (raw, simplified, plain, fused), strict=True))

        print(f"| {arguments.model} | " + " | ".join(columns) + " | ours / samexporter |")
        print("|---" * (len(columns) + 2) + "|")
        if isinstance(base, Run):
            times = {columns[1]: base.seconds, "ours": plain_run.seconds}
            peaks = {columns[1]: base.peak / 2**30, "ours": plain_run.peak / 2**30}
        else:
            times = {columns[0]: base, "ours": plain_run.seconds}
            peaks = {columns[0]: base, "ours": plain_run.peak / 2**30}
        print(row("build to simplified graphs, s", times, columns, "{:.1f}"))
        print(row("build, peak memory, GiB", peaks, columns, "{:.1f}"), flush=True)
        for part, runs in (("encoder", 1), ("decoder", 20)):
            graphs = {name: paths[part] for name, paths in all_graphs.items() if paths}
            figures = {name: static(path) for name, path in graphs.items()}
            for key in next(iter(figures.values())):
                form = "{:.3f}" if "to its" in key else "{:.0f}"
                values = {name: each[key] for name, each in figures.items()}
                print(row(f"{part}: {key}", values, columns, form))
            results = in_turns(graphs, lambda path, runs=runs: native(path, runs), arguments.rounds)
            for label, key, unit in (
                ("session creation, ms", "create", 1e-3),
                ("session creation again, ms", "create again", 1e-3),
                ("resident after it, MiB", "held", MIB),
                ("run, ms", "run", 1e-3),
                ("peak memory, MiB", "peak", MIB),
            ):
                values = {
                    name: each[key] / unit if key in each else each["error"][:60]
                    for name, each in results.items()
                }
                print(
                    row(f"{part}: {label}", values, columns, "{:.0f}" if unit == MIB else "{:.1f}")
                )
            sys.stdout.flush()
            sys.stdout.flush()


if __name__ == "__main__":
    main()
