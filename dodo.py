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
from tasks.building import sources, stage, staleness
from tasks.commands import filmstrip, picture, prune, publish, report, speed
from tasks.config import parse
from tasks.config.schema import Model
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
BROWSER = browsers.find(CONFIG.browser)
browser.check_required(CONFIG, BROWSER)
FINGERPRINTS.remember_in(CONFIG.build / "state" / "fingerprints.json")
stage.run_on(CONFIG)
sources.SUMMARIES.remember_in(CONFIG.build / "state" / "sources.json")

DOIT_CONFIG = {
    "default_tasks": [f"deploy:{model.name}" for model in CONFIG.default_models],
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
    """fetch each checkpoint and check its SHA-256"""
    for model in CONFIG.tables:
        yield checkpoint.task(CONFIG, model)


def task_export() -> Tasks:
    """export encoder and decoder to ONNX"""
    for model in CONFIG.tables:
        yield export.task(CONFIG, model)


def task_simplify() -> Tasks:
    """fold both graphs with onnxsim"""
    for model in CONFIG.tables:
        yield simplify.task(CONFIG, model)


def task_verify() -> Tasks:
    """prove both graphs against PyTorch"""
    for model in CONFIG.models:
        yield verify.task(CONFIG, model)


def task_variant() -> Tasks:
    """store weights in fewer bits, or write .ort files"""
    for model in CONFIG.tables:
        for each in variant.asked_for(CONFIG, model):
            yield variant.task(CONFIG, model, each)


def task_reference() -> Tasks:
    """ask PyTorch about drawn images, for the fidelity of variants"""
    for model in CONFIG.tables:
        if any(each.has_smaller_variants for each in CONFIG.of_table(model)):
            yield reference.task(CONFIG, model)


def task_fidelity() -> Tasks:
    """measure how near each variant comes to PyTorch"""
    for model in CONFIG.models:
        if model.has_smaller_variants:
            for each in model.variants:
                yield fidelity.task(CONFIG, model, each)


def task_tracking_reference() -> Tasks:
    """ask PyTorch to follow objects through drawn clips, for models with `video = true`"""
    for model in CONFIG.tables:
        if model.video:
            yield tracking_reference.task(CONFIG, model)


def task_tracking() -> Tasks:
    """prove the graphs that track against PyTorch"""
    for model in CONFIG.models:
        if model.video:
            for each in model.variants:
                yield tracking.task(CONFIG, model, each)


def task_packages() -> dict[str, Any]:
    """install the packages of npm that the browser's proof needs"""
    return packages.task(CONFIG)


def task_browser() -> Tasks:
    """prove what is to be deployed in a real browser"""
    for model in CONFIG.models:
        if model.browser is not False:
            for each in model.variants:
                yield browser.task(CONFIG, model, BROWSER, each)


def task_deploy() -> Tasks:
    """copy the proven files to the application, with a manifest"""
    for model in CONFIG.models:
        yield deploy.task(CONFIG, model, BROWSER)


for demo in CONFIG.models:
    if demo.name == "demo":

        def task_demo(model: Model = demo) -> dict[str, Any]:
            """build the demo model, which needs no network, and pictures of what it finds"""
            also = ["filmstrip"] if any(each.name == "demo-video" for each in CONFIG.models) else []
            return picture.task(CONFIG, model, CONFIG.of_table(model), also)

    if demo.name == "demo-video":

        def task_filmstrip(model: Model = demo) -> dict[str, Any]:
            """build the demo model that tracks, and a picture of what it follows"""
            return filmstrip.task(CONFIG, model)


def task_speed() -> Tasks:
    """measure how fast the variants of a model are, in one run"""
    for model in CONFIG.models:
        yield speed.task(CONFIG, model, BROWSER)


def task_publish() -> Tasks:
    """put a deployed model into a repository of the Hugging Face hub (--dry-run lists what goes)"""
    for model in CONFIG.models:
        yield publish.task(CONFIG, model)


def task_report() -> dict[str, Any]:
    """show on one page what was measured of every model that is built"""
    return report.task(CONFIG)


def task_prune() -> dict[str, Any]:
    """list what models that are no longer configured left (--yes removes it)"""
    return prune.task(CONFIG)
