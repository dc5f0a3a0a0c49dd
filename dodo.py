"""The pipeline: checkpoint → export → simplify → verify → variant → fidelity → browser → deploy.

`doit` builds every default model, `doit export:small` one stage of one; see README.md.
"""

from collections.abc import Iterator
from typing import Any

from doit import doit_cmd, get_var

from tasks import (
    browser,
    checkpoint,
    deploy,
    export,
    fidelity,
    packages,
    reference,
    simplify,
    tracking,
    tracking_reference,
    variant,
    verify,
)
from tasks.building import staleness
from tasks.building.build import Build
from tasks.commands import filmstrip, paths, picture, prune, publish, report, speed
from tasks.config import parse
from tasks.console import invocation, reporter
from tasks.system.fingerprint import FINGERPRINTS
from tasks.web import browsers

parse.check_variables(doit_cmd._CMDLINE_VARS or {}, invocation.VARIABLES)
CONFIG = parse.load(
    get_var("config", "config/models.toml"),
    deploy=get_var("deploy"),
    cache=get_var("cache"),
    cluster=get_var("cluster"),
    overwrite=get_var("overwrite"),
)
BROWSER = browsers.find(CONFIG.checks.browser)
PROGRAMS = browsers.programs(CONFIG.checks.browser, BROWSER)
browser.check_required(CONFIG, BROWSER)
FINGERPRINTS.remember_in(CONFIG.build / "state" / "fingerprints.json")
BUILD = Build(CONFIG)
TARGETS = {target.name: target for target in CONFIG.targets}

DOIT_CONFIG = {
    "default_tasks": [f"deploy:{target.name}" for target in CONFIG.targets if target.default],
    "backend": "durable",
    "dep_file": str(CONFIG.build / "state" / "doit.json"),
    "check_file_uptodate": staleness.Untracked,
    "reporter": reporter.StageReporter,
    "par_type": "thread",  # the work is in child processes
    "verbosity": 0,
    "sort": "definition",  # of `doit list`
}

Tasks = Iterator[dict[str, Any]]


def task_checkpoint() -> Tasks:
    """1. fetch each checkpoint and check its SHA-256"""
    for source in CONFIG.sources:
        yield BUILD.task(checkpoint.declare(source))


def task_export() -> Tasks:
    """2. export encoder and decoder to ONNX"""
    for source in CONFIG.sources:
        yield BUILD.task(export.declare(source))


def task_simplify() -> Tasks:
    """3. fold both graphs with onnxsim"""
    for source in CONFIG.sources:
        yield BUILD.task(simplify.declare(source))


def task_verify() -> Tasks:
    """4. prove both graphs against PyTorch"""
    for target in CONFIG.targets:
        yield BUILD.task(verify.declare(target))


def task_variant() -> Tasks:
    """5. store weights in fewer bits, or convert graphs to .ort files"""
    for source in CONFIG.sources:
        for each in source.derived_variants:
            yield BUILD.task(variant.declare(source, each))


def task_reference() -> Tasks:
    """6. run PyTorch on drawn images, for the fidelity of variants"""
    for source in CONFIG.sources:
        if source.has_smaller_variants:
            yield BUILD.task(reference.declare(source))


def task_fidelity() -> Tasks:
    """7. measure how close each variant is to PyTorch"""
    for target in CONFIG.targets:
        if target.has_smaller_variants:
            for each in target.variants:
                yield BUILD.task(fidelity.declare(target, each))


def task_tracking_reference() -> Tasks:
    """8. run PyTorch's tracker on drawn clips, for models with `video = true`"""
    for source in CONFIG.sources:
        if source.video:
            yield BUILD.task(tracking_reference.declare(source))


def task_tracking() -> Tasks:
    """9. prove the tracking graphs against PyTorch"""
    for target in CONFIG.targets:
        if target.source.video:
            for each in target.variants:
                yield BUILD.task(tracking.declare(target, each))


def task_packages() -> dict[str, Any]:
    """10. install the npm packages that the browser's proof needs"""
    return BUILD.task(packages.declare(CONFIG.targets))


def task_browser() -> Tasks:
    """11. prove each variant in a real browser"""
    for target in CONFIG.targets:
        if target.browser is not False:
            for each in target.variants:
                yield BUILD.task(browser.declare(target, BROWSER, each))


def task_deploy() -> Tasks:
    """12. copy the proven files into the application's folder, with a manifest"""
    for target in CONFIG.targets:
        yield BUILD.task(deploy.declare(CONFIG, target, BROWSER))


if "demo" in TARGETS and TARGETS["demo"].source.truth:

    def task_demo() -> dict[str, Any]:
        """build the demo model, which needs no network, and a picture of its masks"""
        return BUILD.task(picture.declare(TARGETS["demo"]))


if "demo-video" in TARGETS:

    def task_demo_video() -> dict[str, Any]:
        """build the demo model that tracks, and a picture of the tracked objects"""
        return {"basename": "demo-video", **BUILD.task(filmstrip.declare(TARGETS["demo-video"]))}


def task_speed() -> Tasks:
    """measure the speed of all variants of a model in one run"""
    for target in CONFIG.targets:
        yield BUILD.task(speed.declare(target, BROWSER))


def task_paths() -> Tasks:
    """run a model in every installed browser, build and version of onnxruntime-web"""
    for target in CONFIG.targets:
        yield BUILD.task(paths.declare(target, BROWSER, PROGRAMS))


def task_publish() -> Tasks:
    """upload a deployed model to the Hugging Face hub (--dry-run lists the changes)"""
    for target in CONFIG.targets:
        yield BUILD.task(publish.declare(CONFIG, target))


def task_report() -> dict[str, Any]:
    """write one page with the measurements of every built model"""
    return BUILD.task(report.declare(CONFIG))


def task_prune() -> dict[str, Any]:
    """list the files of models that are no longer configured (--yes removes them)"""
    return BUILD.task(prune.declare())
