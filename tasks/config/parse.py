"""Reads `config/models.toml` into frozen objects, or lists every mistake in it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs, unquote, urlsplit

from tasks.clients.client import Client
from tasks.clients.contract import Format, MaskChoice, PromptChoice
from tasks.clients.known import CLIENTS
from tasks.config.checks import (
    LEAST_IOU,
    BrowserCheck,
    Checks,
    FidelityCheck,
    Precision,
    Tolerances,
    TrackingCheck,
)
from tasks.config.models import (
    DEFAULT_OPSET,
    OPSET_RULE,
    OPSETS,
    WEIGHTS,
    AttentionKind,
    CheckpointLocation,
    Source,
    Switch,
    Target,
    Variant,
)
from tasks.config.published import AUTO, EDGETAM, MODEL_TYPES, NATIVE_IMAGE_SIZE
from tasks.config.schema import (
    DEFAULT_CLIENT,
    HUB_NAME,
    PLAIN_NAME,
    Configuration,
    ConfigurationError,
    Publishing,
)
from tasks.console import address
from tasks.system.cache_settings import NO_CACHE, CacheSettings, local_folder


def load(
    path: str | Path,
    deploy: str | None = None,
    cache: str | None = None,
    cluster: str | None = None,
    overwrite: str | None = None,
) -> Configuration:
    """Read a configuration file, and see that the files which it names are there.

    :param path: the TOML file, relative to the project root (the current folder).
    :param deploy: replaces ``[build] deploy``.
    :param cache: replaces ``[cache] url``; `NO_CACHE` does without.
    :param cluster: replaces ``[build] cluster``.
    :param overwrite: ``"yes"`` lets a deploy replace files that it did not write.
    :raises ConfigurationError: naming every mistake at once.
    """
    path = Path(path)
    config = read(path, deploy, cache, cluster, overwrite)
    missing = _misplaced_cache(config)
    missing += [
        f"  [models.{source.name}] {key}: found {found!r}, but there is no file {file}; "
        "allowed: a file of the project"
        for source in config.sources
        for key, found, files in (
            ("config", str(source.config), source.architecture_files),
            ("truth", source.truth, _truth_files(source)),
        )
        for file in files
        if not Path(file).is_file()
    ]
    missing += [
        f"  [models.{source.name}] truth_data: found {pattern!r}, which no file matches; "
        "allowed: patterns of files, relative to the project"
        for source in config.sources
        for pattern in source.truth_data
        if not any(path.is_file() for path in Path().glob(pattern))
    ]
    if not missing:
        missing = [line for target in config.targets for line in _other_image_size(target)]
    if missing:
        raise ConfigurationError("\n".join([f"{path} has mistakes:", *missing]))
    return config


def read(
    path: Path,
    deploy: str | None = None,
    cache: str | None = None,
    cluster: str | None = None,
    overwrite: str | None = None,
) -> Configuration:
    """Read a configuration file, perhaps another project's; see `load`."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"no configuration at {path} (looked from {Path.cwd()}); "
            "name one with config=FILE, relative to the project root"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path} is not a readable TOML file: {error}") from None
    return parse(tables, path, deploy, cache, cluster, overwrite)


def _misplaced_cache(config: Configuration) -> list[str]:
    """Say that the cache is in a folder that the build removes files from."""
    folder = config.cache and local_folder(config.cache.url)
    if not folder:
        return []
    return [
        f"  [cache] url: found {config.cache and config.cache.shown!r}, which is inside {what}, "
        f"{place}; allowed: a place that no build cleans"
        for what, place in {
            "the build folder": config.build,
            **{f"the deploy folder of {each.name}": each.deploy.parent for each in config.targets},
        }.items()
        if folder.resolve().is_relative_to(place.resolve())
    ][:1]


def _other_image_size(target: Target) -> list[str]:
    """Say that a client does not take images of the size that a YAML file has."""
    taken, file = target.client.image_sizes, target.source.config
    if not taken or file is None:
        return []
    size = re.search(r"^\s*image_size:\s*(\d+)", file.read_text(encoding="utf-8"), re.M)
    if size is None or int(size[1]) in taken:
        return []
    sizes = ", ".join(map(str, taken))
    return [
        f"  [models.{target.source.name}] client: found {target.client.name!r}, which feeds images "
        f"of {sizes} pixels alone, but {file} has image_size {size[1]}; allowed: another "
        "client, or an architecture of that size"
    ]


def _truth_files(source: Source) -> list[str]:
    """The file of the module that draws images with known masks."""
    return [source.truth.split(":")[0].replace(".", "/") + ".py"] if source.truth else []


def check_variables(given: Iterable[str], known: Sequence[str]) -> None:
    """Refuse a ``name=value`` of the command line that nothing reads; doit would ignore it.

    :raises ConfigurationError: naming what was given and what there is.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ConfigurationError(
            "unknown on the command line: "
            f"{', '.join(f'{address.shown(name)}=' for name in unknown)}; "
            f"allowed: {', '.join(known)}"
        )


def parse(
    tables: Mapping[str, Any],
    path: Path,
    deploy: str | None = None,
    cache: str | None = None,
    cluster: str | None = None,
    overwrite: str | None = None,
) -> Configuration:
    """Turn a parsed TOML document into a `Configuration`; pure, no file is touched.

    :raises ConfigurationError: naming every mistake at once.
    """
    mistakes: list[str] = []
    top = _Table("top level", tables, mistakes)
    build = top.table("build")
    verify = top.table("verify")
    build_folder = Path(build.take("dir", _text, "build"))
    deploy_root = Path(deploy or build.take("deploy", _text, "public/onnx-models/sam"))
    scheduler = build.take("cluster", _scheduler, None)
    if cluster is not None:
        given = _Table("on the command line", {"cluster": cluster}, mistakes)
        scheduler = given.take("cluster", _scheduler, None)
    permission = _Table("on the command line", {"overwrite": overwrite or "no"}, mistakes)
    overwrites = permission.take("overwrite", _one_of(("yes", "no"))) == "yes"
    build.finish({"dir", "deploy", "cluster"})

    browser = top.table("browser")
    tolerances = _tolerances(verify, Tolerances())
    verify.finish(_TOLERANCE_KEYS)
    check = BrowserCheck(
        executable=browser.take("executable", _text, None),
        tolerances=_tolerances(browser, BrowserCheck.tolerances),
        mask_iou=browser.take("mask_iou", _share, BrowserCheck.mask_iou),
    )
    enabled = browser.take("enabled", _switch, "auto")
    webgpu = browser.take("webgpu", _boolean, True)
    browser.finish({"enabled", "executable", "webgpu", "mask_iou", *_TOLERANCE_KEYS})

    table = top.table("fidelity")
    fidelity = FidelityCheck(
        images=table.take("images", _count, FidelityCheck.images),
        mask_iou={name: table.take(name, _share, least) for name, least in LEAST_IOU.items()},
        worst=table.take("worst", _share, FidelityCheck.worst),
        ranking_flips=table.take("ranking_flips", _part, FidelityCheck.ranking_flips),
        scores=table.take("score_tolerance", _positive, FidelityCheck.scores),
        logits=table.take("logit_tolerance", _positive, None),
    )
    table.finish(
        {"images", "worst", "ranking_flips", "score_tolerance", "logit_tolerance", *LEAST_IOU}
    )

    table = top.table("tracking")
    tracking = TrackingCheck(
        mask_iou=table.take("mask_iou", _share, TrackingCheck.mask_iou),
        worst=table.take("worst", _share, TrackingCheck.worst),
        scores=table.take("score_tolerance", _positive, TrackingCheck.scores),
    )
    table.finish({"mask_iou", "worst", "score_tolerance"})

    defaults = top.table("defaults")
    variants = _variants(defaults, Defaults(browser=enabled, webgpu=webgpu))
    variants = replace(variants, clients=_clients(defaults, variants.clients))
    defaults.finish(_VARIANT_KEYS | _CLIENT_KEYS)

    shared = _cache(top.table("cache"), cache)

    place = Place(build_folder, deploy_root, Checks(tolerances, check, fidelity, tracking))
    sources: list[Source] = []
    for name in top.table("models").values:
        table = top.table("models").table(name)
        sources += _source(name, table, place, variants)
    targets = [target for source in sources for target in source.targets]
    if not top.values.get("models"):
        top.mistake("models", "none", "at least one [models.<name>] table")
    publishing = _publishing(top.table("publish"), targets) if "publish" in top.values else None
    top.finish(
        {"build", "verify", "browser", "fidelity", "tracking", "cache", "defaults", "models"}
        | {"publish"}
    )
    mistakes += _shared_folders(targets)

    if mistakes:
        lines = "\n".join(f"  {line}" for line in dict.fromkeys(mistakes))
        raise ConfigurationError(f"{path} has mistakes:\n{lines}")
    return Configuration(
        path,
        build_folder,
        tuple(sources),
        place.checks,
        shared,
        publishing,
        scheduler,
        overwrites,
    )


def cache_of(path: Path) -> CacheSettings | None:
    """The shared cache that a configuration names, whatever else is in it; None without one."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    mistakes: list[str] = []
    found = _cache(_Table("top level", tables, mistakes).table("cache"), None)
    return None if mistakes else found


def _cache(table: _Table, given: str | None) -> CacheSettings | None:
    """The shared cache.

    :param given: an address that replaces the table's; `NO_CACHE` does without.
    """
    options = table.values.get("options", {})
    if not isinstance(options, Mapping):  # what it is may be a secret
        table.mistake("options", type(options).__name__, "a table")
        options = {}
    url = table.take("url", _cache_address, *([""] if given or not table.values else []))
    if given:
        command = _Table("on the command line", {"cache": given}, table.mistakes)
        url = command.take("cache", _cache_address)
    settings = CacheSettings(
        url=url or "",
        write=table.take("write", _boolean, True),
        proofs=table.take("proofs", _boolean, False),
        options=options,
    )
    table.finish({"url", "write", "proofs", "options"})
    return settings if settings.url and given != NO_CACHE else None


def _tolerances(table: _Table, defaults: Tolerances) -> Tolerances:
    return Tolerances(
        encoder=table.take("encoder_tolerance", _positive, defaults.encoder),
        masks=table.take("mask_tolerance", _positive, defaults.masks),
        scores=table.take("score_tolerance", _positive, defaults.scores),
    )


@dataclass(frozen=True)
class Place:
    """Where models are built and deployed, and what they are judged by."""

    build: Path
    deploy: Path
    checks: Checks


@dataclass(frozen=True)
class Defaults:
    """What a model is unless its table says otherwise (``[defaults]``, ``[browser]``)."""

    browser: Switch = "auto"
    webgpu: bool = True
    precisions: tuple[Precision, ...] = ("fp32",)
    formats: tuple[Format, ...] | None = None  # each client's own
    clients: tuple[Client, ...] = (CLIENTS[DEFAULT_CLIENT],)


_VARIANT_KEYS = {"variants", "formats"}
_CLIENT_KEYS = {"client", "clients"}


def _variants(table: _Table, default: Defaults) -> Defaults:
    return replace(
        default,
        precisions=table.take("variants", _several_of(get_args(Precision)), default.precisions),
        formats=table.take("formats", _several_of(get_args(Format)), default.formats),
    )


def _clients(table: _Table, default: tuple[Client, ...]) -> tuple[Client, ...]:
    """The clients that a table names, one by ``client`` or several by ``clients``."""
    if "client" in table.values and "clients" in table.values:
        table.mistake("client", "both client and clients", "one of them")
    one = table.take("client", _one_of(CLIENTS), None)
    several = table.take("clients", _several_of(list(CLIENTS)), None)
    names = several or ([one] if one else None)
    return tuple(CLIENTS[name] for name in names) if names else default


# A check returns the value to use, or raises ValueError with what is allowed.
Check = Callable[[Any], Any]

_MODEL_KEYS = {
    "model_type",
    "config",
    "url",
    "sha256",
    "size",
    "folder",
    "deploy",
    "default",
    "opset",
    "image_size",
    "video",
    "masks",
    "prompts",
    "attention",
    "browser",
    "webgpu",
    *_VARIANT_KEYS,
    *_CLIENT_KEYS,
    "truth",
    "truth_data",
    "truth_iou",
    "license",
    "origin",
}
_TOLERANCE_KEYS = {"encoder_tolerance", "mask_tolerance", "score_tolerance"}

# Every key that shapes a stage.
KEYS = _MODEL_KEYS | _TOLERANCE_KEYS | {"images", "worst", "ranking_flips", "mask_iou", *LEAST_IOU}
_PLAIN_NAME_RULE = "letters, digits and . _ + - (no path: it must stay in the deploy folder)"


def _source(name: str, table: _Table, place: Place, defaults: Defaults) -> list[Source]:
    """The source of a table, with a target for each client; empty when the table has a mistake."""
    before = len(table.mistakes)
    if not PLAIN_NAME.fullmatch(name):
        table.mistake("name", name, _PLAIN_NAME_RULE)
    model_type = table.take("model_type", _one_of([AUTO, *MODEL_TYPES]), AUTO)
    config = table.take("config", _text, None)
    if "model_type" in table.values and "config" in table.values:
        table.mistake(
            "model_type or config",
            "both",
            f"one of them: model_type, an architecture by name ({', '.join(MODEL_TYPES)}), or "
            "config, the path of a YAML file",
        )
    model_type = None if model_type == AUTO else model_type
    location = table.take("url", _location)
    if location is not None and location.kind == "synthetic" and not (model_type or config):
        table.mistake(
            "model_type",
            "nothing",
            f"an architecture for {location.shown} to make weights of: {', '.join(MODEL_TYPES)}",
        )
    folder = table.take("folder", _folder, None)
    model_deploy = table.take("deploy", _text, str(place.deploy))
    sha256 = table.take("sha256", _sha256, None)
    size = table.take("size", _size, None)
    default = table.take("default", _boolean, True)
    opset = table.take("opset", _one_of(OPSETS, OPSET_RULE), DEFAULT_OPSET)
    image_size = table.take("image_size", _image_size, None)
    if image_size is not None and config is not None:
        table.mistake("image_size", image_size, f"nothing beside config: {config} has it")
    video = table.take("video", _boolean, False)
    masks = table.take("masks", _one_of(get_args(MaskChoice)), None)
    prompts = table.take("prompts", _one_of(get_args(PromptChoice)), None)
    attention = table.take("attention", _one_of(get_args(AttentionKind)), "plain")
    browser = table.take("browser", _switch, defaults.browser)
    webgpu = table.take("webgpu", _boolean, defaults.webgpu)
    if attention == "fused" and browser is not False:
        table.mistake(
            "attention",
            attention,
            "plain, or fused with `browser = false`: onnxruntime-web's WASM loads "
            "MultiHeadAttention and fails to run it (SafeIntOnOverflow)",
        )
    if attention == "fused" and model_type == EDGETAM:
        table.mistake("attention", attention, f"plain: {EDGETAM}'s encoder has no attention")
    asked = _variants(table, defaults)
    clients = _clients(table, defaults.clients)
    truth = table.take("truth", _function, None)
    truth_data = table.take("truth_data", _patterns, ())
    if truth_data and truth is None:
        table.mistake("truth_data", list(truth_data), "nothing without `truth`, which reads it")
    truth_iou = table.take("truth_iou", _share, Source.truth_iou)
    license_name = table.take("license", _published, None)
    origin = table.take("origin", _published, None)
    table.finish(_MODEL_KEYS)
    for client in clients:
        _check_options(table, client, masks, prompts, asked.formats)
        if image_size is not None and client.image_sizes and image_size not in client.image_sizes:
            sizes = ", ".join(map(str, client.image_sizes))
            table.mistake(
                "image_size",
                image_size,
                f"{sizes} for client {client.name}, which feeds no other, or another client",
            )
    if len(table.mistakes) > before:
        return []
    source = Source(
        name=name,
        build=place.build,
        location=location,
        checks=place.checks,
        model_type=model_type,
        config=Path(config) if config else None,
        sha256=sha256,
        size=size,
        opset=opset,
        image_size=None if image_size == NATIVE_IMAGE_SIZE else image_size,
        video=video,
        attention=attention,
        truth=truth,
        truth_data=truth_data,
        truth_iou=truth_iou,
        license=license_name,
        origin=origin,
    )
    for position, client in enumerate(clients):
        deploy = _place(Path(model_deploy), folder, model_type or name, client, position)
        if not deploy.name.startswith(client.folder_prefix):
            table.mistake(
                "folder",
                deploy.name,
                f"a name that begins with {client.folder_prefix}: {client.name} would take another "
                "for a model of another kind",
            )
        target = Target(
            name=name if position == 0 else f"{name}-{client.name}",
            source=source,
            client=client,
            deploy=deploy,
            masks=masks or client.masks[0],
            prompts=prompts or client.prompts[0],
            variants=tuple(
                Variant(precision, kind)
                for kind in asked.formats or client.formats
                if kind in client.loads
                for precision in asked.precisions
            ),
            default=default,
            browser=browser,
            webgpu=webgpu,
        )
        source.targets.append(target)
    return [source] if len(table.mistakes) == before else []


def _check_options(
    table: _Table,
    client: Client,
    masks: MaskChoice | None,
    prompts: PromptChoice | None,
    formats: Sequence[str] | None,
) -> None:
    """Note each option that a client cannot have."""
    for key, value, allowed in (
        ("masks", masks, client.masks),
        ("prompts", prompts, client.prompts),
    ):
        if value is not None and value not in allowed:
            table.mistake(key, value, f"{', '.join(allowed)} for client {client.name}")
    if formats and not set(formats) & set(client.loads):
        allowed_formats = ", ".join(client.loads)
        table.mistake("formats", list(formats), f"{allowed_formats} for client {client.name}")


def _place(deploy: Path, folder: str | None, kind: str, client: Client, position: int) -> Path:
    """Where a client's files are deployed.

    ``{client}`` in the folder or in the path before it is replaced; without it, a client after the
    first has its name behind the folder's. A folder that was not chosen is made to begin as the
    client asks.
    """
    path = str(deploy / (folder or kind))
    named = path.replace("{client}", client.name)
    if position and named == path:
        named += f"-{client.name}"
    found = Path(named)
    prefix = client.folder_prefix
    if folder is None and not found.name.startswith(prefix):
        # sam2.1_hiera_tiny -> sam2_1_hiera_tiny
        name = found.name.replace("sam2.", "sam2_", 1)
        return found.with_name(name if name.startswith(prefix) else f"{prefix}{name}")
    return found


def _shared_folders(targets: Iterable[Target]) -> list[str]:
    """Name the models that would overwrite another's deployed or intermediate files.

    Compared without case, as macOS and Windows do with file names.
    """
    mistakes = []
    names: dict[str, Target] = {}
    folders: dict[str, Target] = {}
    for target in targets:
        table = f"[models.{target.source.name}]"
        namesake = names.setdefault(target.name.casefold(), target)
        neighbour = folders.setdefault(os.path.normpath(target.deploy).casefold(), target)
        if namesake is not target and namesake.name == target.name:
            mistakes.append(
                f"{table} clients: files for {target.client.name} are built under the name "
                f"{target.name}, as those of [models.{namesake.source.name}] are; "
                "allowed: another name"
            )
        elif namesake is not target:
            mistakes.append(
                f"{table} name: differs from [models.{namesake.name}] in case only; "
                "allowed: a name of its own"
            )
        if neighbour is not target:
            mistakes.append(
                f"{table} folder: found {target.deploy} for {target.client.name}, where "
                f"[models.{neighbour.source.name}] deploys for {neighbour.client.name}; allowed: a "
                "`folder` (or `deploy`) of its own"
            )
    return mistakes


def _publishing(table: _Table, targets: Sequence[Target]) -> Publishing | None:
    """Where models are published; every one of them must have a repository of its own."""
    found = Publishing(
        repo=table.take("repo", _repository, "") or "",
        revision=table.take("revision", _branch, Publishing.revision),
        private=table.take("private", _boolean, Publishing.private),
    )
    if "repo" not in table.values:
        table.mistake("repo", "nothing", _REPOSITORY_RULE)
    table.finish({"repo", "revision", "private"})
    if not found.repo:
        return None
    owners: dict[str, Target] = {}
    for target in targets:
        name = found.repository(target)
        neighbour = owners.setdefault(name.casefold(), target)
        if not _is_repository(name):
            table.mistake(
                "repo",
                found.repo,
                "a pattern whose names the hub takes; for "
                f"[models.{target.source.name}] it gives {name}",
            )
        elif neighbour is not target:
            table.mistake(
                "repo",
                found.repo,
                f"a repository for each model, with {{folder}} or {{model}} in its name; "
                f"{neighbour.name} and {target.name} would both go to {name}",
            )
    return found


class _Table:
    """A TOML table whose values are taken one key at a time, gathering mistakes."""

    def __init__(self, name: str, values: object, mistakes: list[str]) -> None:
        self.name = name
        self.mistakes = mistakes
        self.values: Mapping[str, Any] = {}
        if isinstance(values, Mapping):
            self.values = values
        else:
            mistakes.append(f"{name}: found {_as_found(values)}; allowed: a table")

    def mistake(self, key: str, found: object, allowed: str) -> None:
        self.mistakes.append(f"{self.name} {key}: found {_as_found(found)}; allowed: {allowed}")

    def table(self, key: str) -> _Table:
        name = f"[{key}]" if self.name == "top level" else f"{self.name[:-1]}.{key}]"
        return _Table(name, self.values.get(key, {}), self.mistakes)

    def take(self, key: str, check: Check, *default: Any) -> Any:
        """The checked value of ``key``; None after a mistake, noted as such."""
        if key not in self.values:
            if not default:
                self.mistake(key, "nothing", "a value (the key is required)")
                return None
            return default[0]
        try:
            return check(self.values[key])
        except ValueError as rule:
            self.mistake(key, self.values[key], str(rule))
            return default[0] if default else None

    def finish(self, known: set[str]) -> None:
        """Note every key that nothing reads."""
        for key in self.values:
            if key not in known:
                from difflib import get_close_matches

                near = get_close_matches(key, known, 1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                self.mistakes.append(
                    f"{self.name} {key}: unknown{hint}; allowed: {', '.join(sorted(known))}"
                )


def _as_found(value: object) -> str:
    """What stands in the file, which may be an address in a place where none is expected."""
    if isinstance(value, str):
        return repr(address.shown(value))
    return address.without_secrets(repr(value))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty")
    return value


def _published(value: Any) -> str:
    return address.without_secrets(_text(value))


def _cache_address(value: Any) -> str:
    url = _text(value)
    if address.is_ambiguous(url):
        raise ValueError(f"a folder, or an address that fsspec knows; {_ESCAPES}")
    return url


def _scheduler(value: Any) -> str | None:
    if value == "off":
        return None
    if not isinstance(value, str) or not _SCHEDULER.fullmatch(value):
        raise ValueError("tcp://HOST:PORT or tls://HOST:PORT, of a Dask scheduler, or off")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _switch(value: Any) -> Switch:
    if not isinstance(value, bool) and value != "auto":
        raise ValueError('true, false or "auto"')
    return value  # type: ignore[no-any-return]


def _share(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise ValueError("a number above 0, at most 1")
    return float(value)


def _part(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return float(value)


def _patterns(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(each, str) and each and not Path(each).is_absolute() for each in value
    ):
        raise ValueError('a list of patterns relative to the project, as ["masks/*.tif"]')
    return tuple(value)


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError("a whole number of bytes above 0")
    return value


def _image_size(value: Any) -> int:
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or not 64 <= value <= 2048
        or value % 32
    ):
        raise ValueError("a multiple of 32, 64 to 2048: strides and windows must divide it")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1000:
        raise ValueError("a whole number, 1 to 1000")
    return value


def _positive(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e9:
        raise ValueError("a number above 0")
    return float(value)


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError("64 hexadecimal digits, as `sha256sum` prints them")
    return value.lower()


def _function(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z_][\w.]*:[a-z_]\w*", value):
        raise ValueError("module:function, of a module in the project")
    return value


def _folder(value: Any) -> str:
    if not isinstance(value, str) or not PLAIN_NAME.fullmatch(value.replace("{client}", "c")):
        raise ValueError(_PLAIN_NAME_RULE)
    return value


_REPOSITORY_RULE = (
    "OWNER/NAME of letters, digits and . _ - (as the hub takes them), with {folder} or {model} in "
    'it, as "my-lab/{folder}"'
)


def _is_repository(name: str) -> bool:
    owner, slash, own = name.partition("/")
    return bool(slash and HUB_NAME.fullmatch(owner) and HUB_NAME.fullmatch(own))


def _repository(value: Any) -> str:
    if not isinstance(value, str) or not _is_repository(
        value.replace("{folder}", "f").replace("{model}", "m")
    ):
        raise ValueError(_REPOSITORY_RULE)
    return value


def _branch(value: Any) -> str:
    if not isinstance(value, str) or not PLAIN_NAME.fullmatch(value):
        raise ValueError("a branch: letters, digits and . _ + -")
    return value


_SCHEDULER = re.compile(r"(?:tcp|tls)://(?:[\w.-]+|\[[\da-fA-F:.]+\]):\d{1,5}")


def _one_of(allowed: Iterable[Any], rule: str = "") -> Check:
    choices = list(allowed)

    def check(value: Any) -> Any:
        if isinstance(value, bool) or value not in choices:
            raise ValueError(rule or ", ".join(str(choice) for choice in choices))
        return value

    return check


def _several_of(allowed: Sequence[str]) -> Check:
    def check(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not value or any(each not in allowed for each in value):
            raise ValueError(f"a list of some of {', '.join(allowed)}")
        return tuple(dict.fromkeys(value))

    return check


_SOURCE_RULE = (
    "an https:, http: or file: address, a path relative to the project, "
    "hf:OWNER/NAME[@REVISION][/FILE], or synthetic:?seed=N"
)
_ESCAPES = (
    "in a user or a password, / is written %2F, ? %3F, # %23 and @ %40, and behind the host "
    "@ is written %40"
)
# A revision has no slash, but that of a pull request (refs/pr/1) or a conversion does.
_HUB = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>refs/[^/\s]+/[^/\s]+|(?!refs/)[^/\s]+))?"
    r"(/(?P<file>\S*[^/\s]))?"
)


def _location(value: Any) -> CheckpointLocation:
    url = _text(value)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # whose words may hold the password
        raise ValueError(f"{_SOURCE_RULE}; {_ESCAPES}") from None
    if address.is_ambiguous(url):
        raise ValueError(f"{_SOURCE_RULE}; {_ESCAPES}")
    if parts.scheme == "hf" and address.shown(url) != url:
        raise ValueError(
            "hf:OWNER/NAME[@REVISION][/FILE] without user, password, ? and #; a token stands in "
            "HF_TOKEN"
        )
    if parts.scheme in ("http", "https") and parts.netloc:
        return CheckpointLocation("http", url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return CheckpointLocation("file", url, path=_at_home(unquote(parts.path)))
    if parts.scheme == "hf" and (match := _HUB.fullmatch(url)):
        repo, revision, file = match.group("repo", "revision", "file")
        return CheckpointLocation(
            "hub", url, repo=repo, revision=revision or "main", file=file or WEIGHTS
        )
    if parts.scheme == "synthetic" and not parts.netloc and not parts.path:
        options = parse_qs(parts.query, keep_blank_values=True)
        seed = options.pop("seed", ["0"])[-1]
        if not options and seed.isdecimal():
            return CheckpointLocation("synthetic", url, seed=int(seed))
    if not parts.scheme and parts.path:
        return CheckpointLocation("file", url, path=_at_home(url))
    raise ValueError(_SOURCE_RULE)


def _at_home(path: str) -> Path:
    """A path in which ``~`` is somebody's home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"a path from a home folder that is there; {_SOURCE_RULE}") from error
