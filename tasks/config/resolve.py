"""Makes a configuration from the tables of its file, and checks what several keys decide."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from tasks.clients.client import Client
from tasks.clients.registry import CLIENTS
from tasks.config.checks import (
    LEAST_IOU,
    BrowserCheck,
    Checks,
    FidelityCheck,
    Tolerances,
    TrackingCheck,
)
from tasks.config.models import CheckpointLocation, Source, Switch, Target, Variant
from tasks.config.published import AUTO, EDGETAM, MODEL_TYPES, NATIVE_IMAGE_SIZE
from tasks.config.reading import KeyPath, Mistakes
from tasks.config.schema import (
    DEFAULT_CLIENT,
    NO_CACHE,
    PLAIN_NAME,
    CacheSettings,
    Configuration,
    Publishing,
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
    checks = Checks(
        verify=_tolerances(tables.verify),
        browser=BrowserCheck(
            tables.browser.executable, _tolerances(tables.browser), tables.browser.mask_iou
        ),
        fidelity=_fidelity(tables.fidelity),
        tracking=TrackingCheck(
            tables.tracking.mask_iou, tables.tracking.worst, tables.tracking.score_tolerance
        ),
    )
    sources = []
    for name, table in tables.models.items():
        clients = _clients_of(table, tables.defaults)
        deploy = command.deploy or tables.build.deploy
        places = _places(name, table, deploy, clients)
        _check_model(("models", name), table, _browser(table, tables), mistakes)
        for client in clients:
            _check_client(("models", name), table, client, places[client.name], tables, mistakes)
        if not mistakes.within(("models", name)) and table.url is not None:
            source = _source(name, table, table.url, Path(tables.build.dir), checks)
            _add_targets(source, table, tables, places)
            sources.append(source)
    targets = [target for source in sources for target in source.targets]
    if not tables.models and not mistakes.within(("models",)):
        mistakes.add((), "models", "at least one [models.<name>] table")
    _check_places(targets, mistakes)
    cluster = command.cluster or tables.build.cluster
    return Configuration(
        path=path,
        build=Path(tables.build.dir),
        sources=tuple(sources),
        checks=checks,
        cache=cache_settings(tables.cache, command.cache, mistakes),
        publishing=_publishing(tables.publish, targets, mistakes),
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


def _clients_of(table: ModelTable, defaults: DefaultsTable) -> list[Client]:
    """The clients of a table, each once."""
    for each in (table, defaults):
        names = each.clients or ((each.client,) if each.client else ())
        if names:
            return [CLIENTS[name] for name in dict.fromkeys(names)]
    return [CLIENTS[DEFAULT_CLIENT]]


def _browser(table: ModelTable, tables: Tables) -> Switch:
    return tables.browser.enabled if table.browser is None else table.browser


def _architecture(table: ModelTable) -> str | None:
    return None if table.model_type == AUTO else table.model_type


def _places(
    name: str, table: ModelTable, deploy: str, clients: Sequence[Client]
) -> dict[str, Path]:
    """The folder that each client's files are deployed to, by its name."""
    path = Path(table.deploy or deploy, table.folder or _architecture(table) or name)
    chosen = table.folder is not None
    return {
        client.name: _place(path, client, position > 0, chosen)
        for position, client in enumerate(clients)
    }


def _source(
    name: str, table: ModelTable, location: CheckpointLocation, build: Path, checks: Checks
) -> Source:
    return Source(
        name=name,
        build=build,
        location=location,
        checks=checks,
        model_type=_architecture(table),
        config=Path(table.config) if table.config else None,
        sha256=table.sha256 and table.sha256.lower(),
        size=table.size,
        opset=table.opset,
        image_size=None if table.image_size == NATIVE_IMAGE_SIZE else table.image_size,
        video=table.video,
        attention=table.attention,
        truth=table.truth,
        truth_data=table.truth_data,
        truth_iou=table.truth_iou,
        license=table.license and address.without_secrets(table.license),
        origin=table.origin and address.without_secrets(table.origin),
    )


def _add_targets(
    source: Source, table: ModelTable, tables: Tables, places: Mapping[str, Path]
) -> None:
    """Give a source a target for each of its clients."""
    formats = table.formats or tables.defaults.formats
    precisions = dict.fromkeys(table.variants or tables.defaults.variants)
    for position, (name, place) in enumerate(places.items()):
        client = CLIENTS[name]
        target = Target(
            name=f"{source.name}-{name}" if position else source.name,
            source=source,
            client=client,
            deploy=place,
            masks=table.masks or client.masks[0],
            prompts=table.prompts or client.prompts[0],
            variants=tuple(
                Variant(precision, kind)
                for kind in dict.fromkeys(formats or client.formats)
                if kind in client.loads
                for precision in precisions
            ),
            default=table.default,
            browser=_browser(table, tables),
            webgpu=tables.browser.webgpu if table.webgpu is None else table.webgpu,
        )
        source.targets.append(target)


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
    place: Path,
    tables: Tables,
    mistakes: Mistakes,
) -> None:
    """Note each option that a client does not support."""
    formats = table.formats or tables.defaults.formats
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
    if not place.name.startswith(client.folder_prefix):
        mistakes.add(
            path,
            "folder",
            f"a name that begins with {client.folder_prefix}: {client.name} would take another "
            "for a model of another kind",
            f"found {place.name!r}",
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


def _check_places(targets: Iterable[Target], mistakes: Mistakes) -> None:
    """Note the models that would overwrite another's deployed or intermediate files.

    Compared without case, as macOS and Windows do with file names.
    """
    names: dict[str, Target] = {}
    folders: dict[str, Target] = {}
    for target in targets:
        path = ("models", target.source.name)
        namesake = names.setdefault(target.name.casefold(), target)
        neighbour = folders.setdefault(os.path.normpath(target.deploy).casefold(), target)
        if namesake is not target and namesake.name == target.name:
            mistakes.add(
                path,
                "clients",
                "another name",
                f"files for {target.client.name} are built under the name {target.name}, as those "
                f"of [models.{namesake.source.name}] are",
            )
        elif namesake is not target:
            mistakes.add(
                path,
                "name",
                "a name of its own",
                f"differs from [models.{namesake.name}] in case only",
            )
        if neighbour is not target:
            mistakes.add(
                path,
                "folder",
                "a `folder` (or `deploy`) of its own",
                f"found {target.deploy} for {target.client.name}, where "
                f"[models.{neighbour.source.name}] deploys for {neighbour.client.name}",
            )


def _publishing(
    table: PublishTable | None, targets: Sequence[Target], mistakes: Mistakes
) -> Publishing | None:
    """Where models are published; each must have a repository of its own."""
    if table is None or table.repo is None:
        return None
    publishing = Publishing(table.repo, table.revision, table.private)
    owners: dict[str, Target] = {}
    for target in targets:
        name = publishing.repository(target)
        neighbour = owners.setdefault(name.casefold(), target)
        if not is_repository(name):
            mistakes.add(
                ("publish",),
                "repo",
                "a pattern whose names the hub takes; for "
                f"[models.{target.source.name}] it gives {name}",
            )
        elif neighbour is not target:
            mistakes.add(
                ("publish",),
                "repo",
                "a repository for each model, with {folder} or {model} in its name; "
                f"{neighbour.name} and {target.name} would both go to {name}",
            )
    return publishing
