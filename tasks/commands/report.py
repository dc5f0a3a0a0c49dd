"""`doit report`: the measurements on one HTML page, and in Markdown for a pull request.

It is made from the stages' reports of every built model, so it reruns only when one of them
changes; its dates are those of the measurements. Targets: ``report.html`` (self-contained) and
``report.md`` in ``<build>/report``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.building.stage import Stage, Workspace
from tasks.config.schema import Configuration
from tasks.inference.metrics import written
from tasks.proof.card import TEMPLATES, environment
from tasks.proof.failures import PROVIDERS
from tasks.system.files import write_atomically
from tasks.system.fingerprint import hashes_of

KINDS = ("html", "md")


def folder(config: Configuration) -> Path:
    """Where the report is written."""
    return config.build / "report"


def declare(config: Configuration) -> Stage:
    """The report; in a build with other tasks, it runs last."""
    return Stage(
        None,
        write,
        [config],
        reads=[TEMPLATES / f"report.{kind}" for kind in KINDS],
        writes=[folder(config) / f"report.{kind}" for kind in KINDS],
        # The reports exist only when the stages before this one have run.
        inputs=lambda: hashes_of(sources_of(config)),
        runs_last=True,
    )


def sources_of(config: Configuration) -> list[Path]:
    """Every file that a report can be made from."""
    paths: list[Path] = []
    for target in config.targets:
        paths += [target.report("verify"), target.speeds, target.paths, target.manifest]
        for each in target.built_variants:
            paths += [
                target.report("browser", each),
                target.report("fidelity", each),
                target.report("tracking", each),
                target.picture(each),
            ]
    return paths


def write(config: Configuration, work: Workspace) -> dict[str, Any]:
    """Gather the figures of every built model, and write both files."""
    from statistics import median

    from tasks.commands import report_figures as figures

    gathered = [figures.gather(config, target) for target in config.targets]
    models = [each for each in gathered if each is not None]
    templates = environment(
        milliseconds=figures.milliseconds,
        spread=figures.spread,
        median=median,
        ends=figures.ends,
        written=written,
    )
    for kind in KINDS:
        text = templates.get_template(f"report.{kind}").render(
            models=models,
            ranking=figures.ranking(models),
            best=figures.best(models),
            charts={model.name: figures.charts_of(model.variants) for model in models},
            drift={model.name: figures.drift_of(model.variants) for model in models},
            providers=PROVIDERS,
            config=config.path,
        )
        write_atomically(folder(config) / f"report.{kind}", text)
    page = folder(config) / "report.html"
    if not models:
        return {"summary": f"no model is built yet; {page} says so"}
    rows = sum(len(model.variants) for model in models)
    return {"summary": f"variants: {rows}, models: {len(models)}; see {page}"}
