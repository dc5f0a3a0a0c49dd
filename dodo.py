"""The pipeline: checkpoint → export → simplify → verify → browser → deploy, for each model.

`doit` builds every default model, `doit export:small` one stage of one; see README.md.
"""

from collections.abc import Iterator
from typing import Any

from doit import doit_cmd, get_var

from tasks import (
    browser,
    checkpoint,
    configuration,
    deploy,
    export,
    prune,
    reporter,
    simplify,
    verify,
)
from tasks.fingerprint import FINGERPRINTS, ContentChecker

configuration.check_variables(doit_cmd._CMDLINE_VARS or {}, known=("config", "deploy"))
CONFIG = configuration.load(get_var("config", "config/models.toml"), deploy=get_var("deploy"))
BROWSER = browser.find(CONFIG.browser)
browser.check_required(CONFIG, BROWSER)
FINGERPRINTS.remember_in(CONFIG.build / "state" / "fingerprints.json")

DOIT_CONFIG = {
    "default_tasks": [f"deploy:{model.name}" for model in CONFIG.default_models],
    "backend": "durable",
    "dep_file": str(CONFIG.build / "state" / "doit.json"),
    "check_file_uptodate": ContentChecker,
    "reporter": reporter.StageReporter,
    "par_type": "thread",  # the work is in child processes
    "verbosity": 0,
}

Tasks = Iterator[dict[str, Any]]


def task_checkpoint() -> Tasks:
    """1. fetch each checkpoint and check its SHA-256"""
    for model in CONFIG.models:
        yield checkpoint.task(CONFIG, model)


def task_export() -> Tasks:
    """2. export encoder and decoder to ONNX"""
    for model in CONFIG.models:
        yield export.task(CONFIG, model)


def task_simplify() -> Tasks:
    """3. fold both graphs with onnxsim"""
    for model in CONFIG.models:
        yield simplify.task(CONFIG, model)


def task_verify() -> Tasks:
    """4. prove both graphs against PyTorch"""
    for model in CONFIG.models:
        yield verify.task(CONFIG, model)


def task_browser() -> Tasks:
    """5. prove both graphs in a real browser"""
    for model in CONFIG.models:
        if model.browser is not False:
            yield browser.task(CONFIG, model, BROWSER)


def task_deploy() -> Tasks:
    """6. copy the proven files to the application, with a manifest"""
    for model in CONFIG.models:
        yield deploy.task(CONFIG, model, BROWSER)


if any(model.name == "demo" for model in CONFIG.models):

    def task_demo() -> dict[str, Any]:
        """build the demo model, which needs no network"""
        return {"actions": None, "task_dep": ["deploy:demo"]}


def task_prune() -> dict[str, Any]:
    """list what removed models left deployed (--yes removes it)"""
    return prune.task(CONFIG)
