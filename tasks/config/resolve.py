"""Makes a configuration from the tables of its file, and checks keys against each other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

from tasks.clients.client import Client
from tasks.clients.registry import client_by_key, client_for, clients_for
from tasks.config.checks import Checks
from tasks.config.location import CheckpointLocation
from tasks.config.models import Source, Target, Variant
from tasks.config.reading import KeyPath, Mistakes
from tasks.config.rules import DEFAULT_CLIENT, PLAIN_NAME, PLAIN_NAME_RULE, Switch, is_repository
from tasks.config.schema import Configuration
from tasks.config.tables import (
    CacheTable,
    DefaultsTable,
    ModelTable,
    Publishing,
    Tables,
    Variables,
)
from tasks.console import address
from tasks.model.families.registry import MODEL_TYPES, family_of
from tasks.model.published import AUTO, native_image_size
from tasks.remote.cache_settings import NO_CACHE, CacheSettings


def resolve(tables: Tables, command: Variables, path: Path, mistakes: Mistakes) -> Configuration:
    """Make the configuration from the tables and the command line.

    :param mistakes: mistakes in the tables; mistakes of keys that contradict each other are added.
    """
    _refuse_both("client", "clients", ("defaults",), mistakes)
    if not tables.models and not mistakes.within(("models",)):
        mistakes.add((), "models", "at least one [models.<name>] table")
    build = Path(tables.build.dir)
    checks = Checks(
        verify=tables.verify,
        browser=tables.browser,
        fidelity=tables.fidelity,
        tracking=tables.tracking,
    )
    sources = []
    for name, table in tables.models.items():
        root = table.deploy or command.deploy or tables.build.deploy
        places = _places(name, table, tables, Path(root), mistakes)
        if table.url is not None and not mistakes.within(("models", name)):
            source = _source(name, table, table.url, build, checks)
            for key, place in places.items():
                source.targets.append(_target(source, client_by_key(key), place, table, tables))
            sources.append(source)
    targets = [target for source in sources for target in source.targets]
    _check_places(targets, mistakes)
    if tables.publish is not None and tables.publish.repo is not None:
        _check_repositories(tables.publish, targets, mistakes)
    cluster = command.cluster or tables.build.cluster
    return Configuration(
        path=path,
        build=build,
        sources=tuple(sources),
        checks=checks,
        cache=cache_settings(tables.cache, command.cache, mistakes),
        publishing=tables.publish,
        signing=tables.sign,
        cluster=None if cluster == "off" else cluster,
        overwrite=command.overwrite == "yes",
    )


def cache_settings(
    table: CacheTable, replaced_by: str | None, mistakes: Mistakes
) -> CacheSettings | None:
    """The shared cache, or None; an address or `NO_CACHE` replaces the table's address."""
    url = replaced_by or table.url
    is_set = any(mistakes.has(("cache",), key.name) for key in fields(table))
    if url is None and is_set and not mistakes.within(("cache", "url")):
        mistakes.add(("cache",), "url", "a value (the key is required)")
    if url is None or replaced_by == NO_CACHE:
        return None
    return CacheSettings(url, table.write, table.proofs, table.options or {})


def _source(
    name: str, table: ModelTable, location: CheckpointLocation, build: Path, checks: Checks
) -> Source:
    native = native_image_size(table.model_type)
    return Source(
        name=name,
        build=build,
        location=location,
        checks=checks,
        model_type=_model_type(table),
        config=str(Path(table.config)) if table.config else None,
        sha256=table.sha256 and table.sha256.lower(),
        size=table.size,
        opset=table.opset,
        image_size=None if table.image_size == native else table.image_size,
        video=table.video,
        attention=table.attention,
        truth=table.truth,
        truth_data=table.truth_data,
        truth_iou=table.truth_iou,
        license=table.license and address.without_secrets(table.license),
        origin=table.origin and address.without_secrets(table.origin),
    )


def _target(
    source: Source, client: Client, deploy: Path, table: ModelTable, tables: Tables
) -> Target:
    formats = table.formats or tables.defaults.formats or client.formats
    precisions = table.variants or tables.defaults.variants
    return Target(
        name=f"{source.name}-{client.name}" if source.targets else source.name,
        source=source,
        client=client,
        deploy=deploy,
        masks=table.masks or client.masks[0],
        prompts=table.prompts or client.prompts[0],
        variants=tuple(
            Variant(precision, kind)
            for kind in dict.fromkeys(formats)
            if kind in client.loads
            for precision in dict.fromkeys(precisions)
            if (precision, kind) != ("half", "ort")
        ),
        default=table.default,
        browser=_browser(table, tables),
        webgpu=not client.wasm_alone
        and (tables.browser.webgpu if table.webgpu is None else table.webgpu),
    )


def _model_type(table: ModelTable) -> str | None:
    return None if table.model_type == AUTO else table.model_type


def _browser(table: ModelTable, tables: Tables) -> Switch:
    return tables.browser.enabled if table.browser is None else table.browser


def _clients(table: ModelTable | DefaultsTable) -> tuple[str, ...] | None:
    return table.clients or ((table.client,) if table.client else None)


def _places(
    name: str, table: ModelTable, tables: Tables, root: Path, mistakes: Mistakes
) -> dict[str, Path]:
    """The deploy folders of a model's clients by key; adds mistakes of contradicting keys."""
    path = ("models", name)
    _check_model(path, table, _browser(table, tables), mistakes)
    family = family_of(table.model_type)
    places: dict[str, Path] = {}
    for each in _clients(table) or _clients(tables.defaults) or (DEFAULT_CLIENT,):
        client = client_for(each, family.layout)
        if client is None:
            readers = ", ".join(clients_for(family.layout))
            mistakes.add(path, "client", f"{readers} for {family.title}", f"found {each!r}")
        elif client.key not in places:
            _check_client(path, table, client, tables.defaults, mistakes)
            place = root / (table.folder or _model_type(table) or name)
            place = _place(place, client, bool(places), table.folder is not None)
            places[client.key] = place
            if not place.name.startswith(client.folder_prefix):
                allowed = (
                    f"a name that begins with {client.folder_prefix}; {each} takes a folder with "
                    "another name for another kind of model"
                )
                mistakes.add(path, "folder", allowed, f"found {place.name!r}")
    return places


def _refuse_both(
    one: str, other: str, path: KeyPath, mistakes: Mistakes, meaning: str = ""
) -> None:
    """Add a mistake if both of two keys are set that exclude each other."""
    if mistakes.has(path, one, other):
        mistakes.add(path, one, f"{one} or {other}, not both{meaning}")


def _check_model(path: KeyPath, table: ModelTable, browser: Switch, mistakes: Mistakes) -> None:
    """Add the mistakes of a model's keys that contradict each other."""
    add = partial(mistakes.add, path)
    types = ", ".join(MODEL_TYPES)
    if not PLAIN_NAME.fullmatch(path[-1]):
        add("name", PLAIN_NAME_RULE, f"found {address.shown(path[-1])!r}")
    _refuse_both("client", "clients", path, mistakes)
    meaning = f": an architecture by name ({types}), or the path of a YAML file"
    _refuse_both("model_type", "config", path, mistakes, meaning)
    made_up = table.url is not None and table.url.kind == "synthetic"
    if made_up and table.model_type == AUTO and not table.config:
        add("model_type", f"an architecture for random weights: {types}")
    if table.image_size is not None and table.config is not None:
        add("image_size", f"no image_size beside config: {address.shown(table.config)} sets it")
    if table.attention == "fused" and browser is not False:
        add(
            "attention",
            "plain, or fused with `browser = false`: onnxruntime-web's WASM loads "
            "MultiHeadAttention and fails to run it (SafeIntOnOverflow)",
        )
    _check_family(path, table, mistakes)
    if table.truth_data and table.truth is None:
        add("truth_data", "no truth_data without `truth`, which reads it")


def _check_family(path: KeyPath, table: ModelTable, mistakes: Mistakes) -> None:
    """Add a mistake for each option that does not apply to a model's family."""
    add = partial(mistakes.add, path)
    family = family_of(table.model_type)
    if table.attention not in family.attention:
        add("attention", f"{', '.join(family.attention)} for {family.title}")
    if table.image_size is not None and not family.has_sizes:
        add("image_size", f"no image_size for {family.title}: its weights are for one size")
    if table.video and not family.tracks:
        add("video", f"no video for {family.title}, which has no memory of frames")


def _check_client(
    path: KeyPath,
    table: ModelTable,
    client: Client,
    defaults: DefaultsTable,
    mistakes: Mistakes,
) -> None:
    """Add a mistake for each option that a client does not support."""
    add = partial(mistakes.add, path)
    of_client = f"for client {client.name}"
    formats = table.formats or defaults.formats
    precisions = table.variants or defaults.variants
    if table.masks is not None and table.masks not in client.masks:
        add("masks", f"{', '.join(client.masks)} {of_client}")
    if table.prompts is not None and table.prompts not in client.prompts:
        add("prompts", f"{', '.join(client.prompts)} {of_client}")
    if formats and not set(formats) & set(client.loads):
        add("formats", f"{', '.join(client.loads)} {of_client}", f"found {list(formats)}")
    for each in precisions:
        if each in client.refused:
            add("variants", f"no {each} {of_client}: {client.refused[each]}")
    if "half" in precisions:
        _check_half(path, table, formats, mistakes)
    if table.webgpu and client.wasm_alone:
        add("webgpu", f"no webgpu {of_client}, which runs only on WASM")
    if table.graphs is not None and set(table.graphs) != set(client.graphs):
        loaded = " and ".join(client.graphs)
        other = "bioimage.io for only a decoder" if client.encodes else "one with an encoder"
        add("graphs", f"no graphs {of_client}, which loads {loaded}; or another client, {other}")
    if table.model_type in family_of(table.model_type).too_large and client.encodes:
        allowed = (
            "a smaller model: its encoder has more weights than the 2 GiB that a graph in one "
            'file can hold; or only a decoder (`client = "bioimage.io"`)'
        )
        add("model_type", allowed, f"found {table.model_type!r} {of_client}")
    sizes = client.image_sizes
    if table.image_size is not None and sizes and table.image_size not in sizes:
        taken = ", ".join(map(str, sizes))
        add("image_size", f"{taken} {of_client}, which sends no other size; or another client")


def _check_half(
    path: KeyPath, table: ModelTable, formats: Sequence[str] | None, mistakes: Mistakes
) -> None:
    """Add a mistake for each option that excludes computing in half precision."""
    add = partial(mistakes.add, path, "variants")
    if formats and "onnx" not in formats:
        add(
            'no half with formats = ["ort"]: onnxruntime writes .ort files for the CPU, which '
            "computes in single precision"
        )
    if table.webgpu is False:
        add("no half with webgpu = false: only WebGPU computes in half precision")
    if table.attention == "fused":
        add("no half with fused attention, which was not tested in half precision")


def _place(path: Path, client: Client, further: bool, chosen: bool) -> Path:
    """The deploy folder of a client's files: ``path`` with the client's name for ``{client}``.

    :param further: the client is not the first, so its name is added if ``{client}`` is missing.
    :param chosen: the name is configured; other names get the client's prefix.
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
    """Add a mistake for each model whose files would overwrite another's, ignoring case."""
    names: dict[str, Target] = {}
    folders: dict[str, Target] = {}
    for target in targets:
        add = partial(mistakes.add, ("models", target.source.name))
        namesake = names.setdefault(target.name.casefold(), target)
        neighbour = folders.setdefault(os.path.normpath(target.deploy).casefold(), target)
        if namesake is not target and namesake.name == target.name:
            add(
                "clients",
                "another name",
                f"files for {target.client.name} are built under the name {target.name}, as "
                f"those of [models.{namesake.source.name}] are",
            )
        elif namesake is not target:
            problem = f"differs only in case from [models.{namesake.name}]"
            add("name", "a name of its own", problem)
        if neighbour is not target:
            add(
                "folder",
                "a `folder` (or `deploy`) of its own",
                f"found {target.deploy} for {target.client.name}, where "
                f"[models.{neighbour.source.name}] deploys for {neighbour.client.name}",
            )


def _check_repositories(
    publishing: Publishing, targets: Sequence[Target], mistakes: Mistakes
) -> None:
    """Add a mistake for each model without its own repository."""
    add = partial(mistakes.add, ("publish",), "repo")
    owners: dict[str, Target] = {}
    for target in targets:
        name = publishing.repository(target)
        neighbour = owners.setdefault(name.casefold(), target)
        if not is_repository(name):
            model = f"[models.{target.source.name}]"
            add(f"a pattern that gives names the hub accepts; for {model} it gives {name}")
        elif neighbour is not target:
            add(
                "a repository for each model, with {folder} or {model} in its name; "
                f"{neighbour.name} and {target.name} would both go to {name}",
            )
