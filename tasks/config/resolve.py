"""Makes a configuration from the tables of its file, and checks what several keys decide."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from tasks.clients.client import Client
from tasks.clients.known import CLIENTS
from tasks.config.published import AUTO, EDGETAM, MODEL_TYPES, NATIVE_IMAGE_SIZE
from tasks.config.reading import KeyPath, Mistakes
from tasks.config.schema import (
    DEFAULT_CLIENT,
    LEAST_IOU,
    NO_CACHE,
    PLAIN_NAME,
    BrowserCheck,
    CacheSettings,
    Configuration,
    FidelityCheck,
    Model,
    Publishing,
    Switch,
    Tolerances,
    TrackingCheck,
    Variant,
)
from tasks.config.tables import (
    PLAIN_NAME_RULE,
    BrowserTable,
    CacheTable,
    DefaultsTable,
    FidelityTable,
    ModelTable,
    PublishTable,
    Tables,
    Variables,
    VerifyTable,
    is_repository,
)
from tasks.console import address


def resolve(tables: Tables, command: Variables, path: Path, mistakes: Mistakes) -> Configuration:
    """The configuration that tables and the command line describe.

    :param mistakes: those in the tables; those that several keys make are added.
    """
    _refuse_both("client", "clients", ("defaults",), mistakes)
    models = [
        model
        for name, table in tables.models.items()
        for model in _models(name, table, tables, command, mistakes)
    ]
    if not tables.models and not mistakes.within(("models",)):
        mistakes.add((), "models", "at least one [models.<name>] table")
    _check_places(models, mistakes)
    cluster = command.cluster or tables.build.cluster
    tracking = tables.tracking
    return Configuration(
        path=path,
        build=Path(tables.build.dir),
        models=tuple(models),
        tolerances=_tolerances(tables.verify),
        browser=BrowserCheck(
            tables.browser.executable, _tolerances(tables.browser), tables.browser.mask_iou
        ),
        fidelity=_fidelity(tables.fidelity),
        tracking=TrackingCheck(tracking.mask_iou, tracking.worst, tracking.score_tolerance),
        cache=cache_settings(tables.cache, command.cache, mistakes),
        publishing=_publishing(tables.publish, models, mistakes),
        cluster=None if cluster == "off" else cluster,
        overwrite=command.overwrite == "yes",
    )


def cache_settings(
    table: CacheTable, replaced_by: str | None, mistakes: Mistakes
) -> CacheSettings | None:
    """The shared cache; None without one.

    :param replaced_by: an address in place of the table's; `NO_CACHE` does without.
    """
    url = replaced_by or table.url
    is_set = any(mistakes.has(("cache",), key.name) for key in fields(table))
    if url is None and is_set and not mistakes.within(("cache", "url")):
        mistakes.add(("cache",), "url", "a value (the key is required)")
    if url is None or replaced_by == NO_CACHE:
        return None
    return CacheSettings(url, table.write, table.proofs, table.options or {})


def _tolerances(table: VerifyTable | BrowserTable) -> Tolerances:
    return Tolerances(table.encoder_tolerance, table.mask_tolerance, table.score_tolerance)


def _fidelity(table: FidelityTable) -> FidelityCheck:
    return FidelityCheck(
        images=table.images,
        mask_iou={name: getattr(table, name) for name in LEAST_IOU},
        worst=table.worst,
        ranking_flips=table.ranking_flips,
        scores=table.score_tolerance,
        logits=table.logit_tolerance,
    )


def _clients(table: ModelTable | DefaultsTable) -> tuple[str, ...] | None:
    return table.clients or ((table.client,) if table.client else None)


def _models(
    name: str, table: ModelTable, tables: Tables, command: Variables, mistakes: Mistakes
) -> list[Model]:
    """A model for each client of a table; none if the table has a mistake."""
    path = ("models", name)
    defaults = tables.defaults
    names = _clients(table) or _clients(defaults) or (DEFAULT_CLIENT,)
    clients = [CLIENTS[client] for client in dict.fromkeys(names)]
    browser = tables.browser.enabled if table.browser is None else table.browser
    formats = table.formats or defaults.formats
    model_type = None if table.model_type == AUTO else table.model_type
    deploy = Path(
        table.deploy or command.deploy or tables.build.deploy, table.folder or model_type or name
    )
    places: dict[str, Path] = {}
    _check_model(path, table, browser, mistakes)
    for client in clients:
        places[client.name] = place = _place(deploy, client, bool(places), table.folder is not None)
        _check_client(path, table, client, formats, mistakes)
        if not place.name.startswith(client.folder_prefix):
            mistakes.add(
                path,
                "folder",
                f"a name that begins with {client.folder_prefix}: {client.name} would take another "
                "for a model of another kind",
                f"found {place.name!r}",
            )
    if mistakes.within(path) or table.url is None:
        return []
    return [
        Model(
            name=f"{name}-{client.name}" if position else name,
            table=name,
            client=client,
            model_type=model_type,
            config=Path(table.config) if table.config else None,
            source=table.url,
            deploy=places[client.name],
            sha256=table.sha256 and table.sha256.lower(),
            size=table.size,
            default=table.default,
            opset=table.opset,
            image_size=None if table.image_size == NATIVE_IMAGE_SIZE else table.image_size,
            video=table.video,
            masks=table.masks or client.masks[0],
            prompts=table.prompts or client.prompts[0],
            attention=table.attention,
            browser=browser,
            webgpu=tables.browser.webgpu if table.webgpu is None else table.webgpu,
            variants=tuple(
                Variant(precision, kind)
                for kind in dict.fromkeys(formats or client.formats)
                if kind in client.loads
                for precision in dict.fromkeys(table.variants or defaults.variants)
            ),
            truth=table.truth,
            truth_data=table.truth_data,
            truth_iou=table.truth_iou,
            license=table.license and address.without_secrets(table.license),
            origin=table.origin and address.without_secrets(table.origin),
        )
        for position, client in enumerate(clients)
    ]


def _refuse_both(
    one: str, other: str, path: KeyPath, mistakes: Mistakes, meaning: str = ""
) -> None:
    """Note that two keys are set which exclude each other."""
    if mistakes.has(path, one, other):
        mistakes.add(path, one, f"{one} or {other}, not both{meaning}")


def _check_model(path: KeyPath, table: ModelTable, browser: Switch, mistakes: Mistakes) -> None:
    """Note the mistakes of a model that several keys make."""
    types = ", ".join(MODEL_TYPES)
    if not PLAIN_NAME.fullmatch(path[-1]):
        mistakes.add(path, "name", PLAIN_NAME_RULE, f"found {address.shown(path[-1])!r}")
    _refuse_both("client", "clients", path, mistakes)
    _refuse_both(
        "model_type",
        "config",
        path,
        mistakes,
        f": an architecture by name ({types}), or the path of a YAML file",
    )
    made_up = table.url is not None and table.url.kind == "synthetic"
    if made_up and table.model_type == AUTO and not table.config:
        mistakes.add(path, "model_type", f"an architecture to make random weights of: {types}")
    if table.image_size is not None and table.config is not None:
        mistakes.add(
            path,
            "image_size",
            f"no image_size beside config: {address.shown(table.config)} has it",
        )
    if table.attention == "fused" and browser is not False:
        mistakes.add(
            path,
            "attention",
            "plain, or fused with `browser = false`: onnxruntime-web's WASM loads "
            "MultiHeadAttention and fails to run it (SafeIntOnOverflow)",
        )
    if table.attention == "fused" and table.model_type == EDGETAM:
        mistakes.add(path, "attention", f"plain: {EDGETAM}'s encoder has no attention")
    if table.truth_data and table.truth is None:
        mistakes.add(path, "truth_data", "no truth_data without `truth`, which reads it")


def _check_client(
    path: KeyPath,
    table: ModelTable,
    client: Client,
    formats: Sequence[str] | None,
    mistakes: Mistakes,
) -> None:
    """Note each option that a client does not support."""
    for key, value, allowed in (
        ("masks", table.masks, client.masks),
        ("prompts", table.prompts, client.prompts),
    ):
        if value is not None and value not in allowed:
            mistakes.add(path, key, f"{', '.join(allowed)} for client {client.name}")
    if formats and not set(formats) & set(client.loads):
        mistakes.add(
            path,
            "formats",
            f"{', '.join(client.loads)} for client {client.name}",
            f"found {list(formats)}",
        )
    sizes = client.image_sizes
    if table.image_size is not None and sizes and table.image_size not in sizes:
        mistakes.add(
            path,
            "image_size",
            f"{', '.join(map(str, sizes))} for client {client.name}, which feeds no other, or "
            "another client",
        )


def _place(path: Path, client: Client, further: bool, chosen: bool) -> Path:
    """The folder that a client's files are deployed to.

    :param path: the folder, in which ``{client}`` is replaced by the client's name.
    :param further: whether the client is not the first, so that a name without ``{client}`` needs
        the client's.
    :param chosen: whether the name is configured; another one gets the client's prefix.
    """
    named = str(path).replace("{client}", client.name)
    if further and named == str(path):
        named += f"-{client.name}"
    place = Path(named)
    prefix = client.folder_prefix
    if chosen or place.name.startswith(prefix):
        return place
    name = place.name.replace("sam2.", "sam2_", 1)  # sam2.1_hiera_tiny -> sam2_1_hiera_tiny
    return place.with_name(name if name.startswith(prefix) else f"{prefix}{name}")


def _check_places(models: Iterable[Model], mistakes: Mistakes) -> None:
    """Note the models that would overwrite another's deployed or intermediate files.

    Compared without case, as macOS and Windows do with file names.
    """
    names: dict[str, Model] = {}
    folders: dict[str, Model] = {}
    for model in models:
        path = ("models", model.base)
        namesake = names.setdefault(model.name.casefold(), model)
        neighbour = folders.setdefault(os.path.normpath(model.deploy).casefold(), model)
        if namesake is not model and namesake.name == model.name:
            mistakes.add(
                path,
                "clients",
                "another name",
                f"files for {model.client.name} are built under the name {model.name}, as those "
                f"of [models.{namesake.base}] are",
            )
        elif namesake is not model:
            mistakes.add(
                path,
                "name",
                "a name of its own",
                f"differs from [models.{namesake.name}] in case only",
            )
        if neighbour is not model:
            mistakes.add(
                path,
                "folder",
                "a `folder` (or `deploy`) of its own",
                f"found {model.deploy} for {model.client.name}, where [models.{neighbour.base}] "
                f"deploys for {neighbour.client.name}",
            )


def _publishing(
    table: PublishTable | None, models: Sequence[Model], mistakes: Mistakes
) -> Publishing | None:
    """Where models are published; each must have a repository of its own."""
    if table is None or table.repo is None:
        return None
    publishing = Publishing(table.repo, table.revision, table.private)
    owners: dict[str, Model] = {}
    for model in models:
        name = publishing.repository(model)
        neighbour = owners.setdefault(name.casefold(), model)
        if not is_repository(name):
            mistakes.add(
                ("publish",),
                "repo",
                f"a pattern whose names the hub takes; for [models.{model.base}] it gives {name}",
            )
        elif neighbour is not model:
            mistakes.add(
                ("publish",),
                "repo",
                "a repository for each model, with {folder} or {model} in its name; "
                f"{neighbour.name} and {model.name} would both go to {name}",
            )
    return publishing
