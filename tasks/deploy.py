"""Puts the proven files and a manifest where the application serves them; all or nothing.

A file is deployed only if every report that the configuration requires judged exactly its bytes.
The manifest holds no time, so a consumer can key its cache on it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tasks.building import staleness, state
from tasks.building.stage import Stage, Workspace
from tasks.config.models import FP32, Target
from tasks.config.schema import Configuration
from tasks.console.sizes import mebibytes
from tasks.proof import judged_model, reports, signature
from tasks.proof.judged_model import JudgedModel
from tasks.proof.reports import Proof
from tasks.records import ledger
from tasks.records.listing import SIGNATURE
from tasks.records.placing import DeployFolder
from tasks.system.fingerprint import dependency_hashes
from tasks.system.versions import versions
from tasks.web import packages
from tasks.web.browsers import Browser

PACKAGES = ("cattrs",)  # writes the manifest


def declare(config: Configuration, target: Target, browser: Browser) -> Stage:
    """The stage that deploys one model.

    :param browser: the browser that proves models on this machine.
    """
    key = config.signing.private_key if config.signing else None
    signed_by = versions(*signature.PACKAGES) if key else {}
    proofs = reports.of_all_variants(target, browser.missing)
    return Stage(
        target.name,
        deploy,
        [target, browser],
        reads=[
            *(path for variant in proofs for path in target.graph_files(variant).values()),
            target.source.checkpoint_record,
        ],
        writes=[target.manifest],
        inputs={**judged_model.inputs(target, proofs), **versions(*PACKAGES), **signed_by},
        # Reports are not in `reads`, so that the error about a missing one names its proof.
        also_reads=[
            *(each.path for needed in proofs.values() for each in needed),
            *([key] if key else []),
        ],
        up_to_date=[
            (ledger.holds_what_its_manifest_says, [target.deploy]),
            *([(ledger.holds_its_signature, [config, target])] if key else []),
        ],
        also_runs=[target.client.documents_source],
    )


def deploy(target: Target, browser: Browser, work: Workspace) -> dict[str, Any]:
    """Put every proven variant and the manifest in place together.

    A variant that failed a proof is left out; the manifest says why.

    :raises StageError: when a file is not what its reports measured, no variant may be deployed, or
        a file cannot be put in place; the files deployed before stay as they were.
    """
    from tasks.proof.description import documents

    folder = DeployFolder(work.config, target)
    folder.undo_killed_run()
    in_browser, note = browser_asked(target, browser)
    model = JudgedModel(target, in_browser)
    model.check()
    texts = documents(model)
    if work.config.signing is not None:
        texts = signed(model, work.config.signing.private_key, work)
    notes = folder.place(model.files, texts)
    summary = f"{describe_sizes(model)} in {target.deploy}"
    lines = [*([note] if note else []), *notes]
    return {"summary": summary, **({"note": "\n".join(lines)} if lines else {})}


def signed(model: JudgedModel, key: Path, work: Workspace) -> dict[str, str]:
    """The texts to deploy, including how the files were made and a signature.

    :raises StageError: when the key cannot be used.
    """
    from tasks.proof import provenance
    from tasks.proof.description import documents

    name, target = work.task.name, model.target
    records = state.recorded_values(work.config.build / "state" / "doit.json")
    behind = staleness.names_behind(name, work.services.tasks)
    traces = {each: records[each] for each in behind if each in records and each != name}
    code = dependency_hashes(each for each in work.task.file_dep if each.endswith(".py"))
    texts = documents(model, partial(provenance.texts, model, traces, code))
    contents = {name: path for name, (path, _) in model.files.items()}
    encoded = {name: text.encode() for name, text in texts.items()}
    earlier = target.deploy / SIGNATURE
    made = signature.sign({**contents, **encoded}, key, earlier, work.scratch)
    return {**texts, SIGNATURE: made}


def browser_asked(target: Target, browser: Browser) -> tuple[bool, str | None]:
    """Whether a browser's proof is required, and a note if no browser could run the model."""
    if target.browser is False:
        return False, None
    missing = browser.missing if target.browser == "auto" else None
    if missing is None and target.browser == "auto" and not packages.are_installed():
        report = reports.read(Proof("browser", target, target.variants[0]).path)
        missing = report.get("unavailable") if report else None
    if missing is None:
        return True, None
    return False, f"No browser has proven the deployed files: {missing}."


def describe_sizes(model: JudgedModel) -> str:
    """The sizes of the deployed files, for people: each file of fp32, the sum of each variant."""
    texts = []
    for each in model.deployed:
        sizes = {graph: path.stat().st_size for graph, path in each.graphs.items()}
        if each.variant == FP32:
            texts += [f"{graph} {mebibytes(size)}" for graph, size in sizes.items()]
        else:
            texts.append(f"{each.variant.name} {mebibytes(sum(sizes.values()))}")
    return ", ".join(texts)
