"""Finds a file in a repository of the Hugging Face hub: its address, size and SHA-256.

huggingface_hub asks, with the token of the environment (``HF_TOKEN``) or of `hf auth login`, at
``HF_ENDPOINT`` where that is set. The file is then downloaded as any other (`download.fetch`),
unless huggingface_hub has it in its own cache; with ``HF_HUB_OFFLINE`` it must be there.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tasks.console import address
from tasks.remote import download, network
from tasks.remote.answers import Request
from tasks.system.errors import StageError

CONFIG = "config.json"


class HubFile(NamedTuple):
    """A file of a repository at one commit.

    ``sha256`` is the hub's own, of a file that it keeps as a large one; ``headers`` are sent with
    a request for it; ``copy`` is where huggingface_hub has it in its cache.
    """

    url: str
    headers: Mapping[str, str]
    size: int | None
    sha256: str | None
    commit: str
    copy: Path | None


class NoSuchFile(StageError):
    """A repository does not have a file at a revision."""


def find(repo: str, revision: str, file: str, table: str) -> HubFile:
    """Ask the hub, or with ``HF_HUB_OFFLINE`` huggingface_hub's cache, for a file of a repository.

    :param revision: a branch, a tag or a commit.
    :raises download.Unreachable: when no connection to the hub comes about.
    :raises StageError: when there is no such repository, revision or file, or it may not be read.
    """
    import huggingface_hub
    from httpx2 import TransportError
    from huggingface_hub import errors

    hide_secrets_in_log()
    where = f"{table} url: hf:{repo}"
    if huggingface_hub.is_offline_mode():
        return _find_offline(repo, revision, file, where)
    network.hub_client()
    token = huggingface_hub.get_token()
    try:
        metadata = huggingface_hub.get_hf_file_metadata(
            huggingface_hub.hf_hub_url(repo, file, revision=revision), token=token or False
        )
    except TransportError as error:
        copy = _cached(repo, revision, file)
        offer = " HF_HUB_OFFLINE=1 takes what huggingface_hub has in its cache: "
        offer = f"{offer}{copy}." if copy else ""
        raise download.Unreachable(
            f"{where}: {endpoint()} cannot be reached: "
            f"{address.without_secrets(network.in_words(error))}. Check the network (and "
            f"HF_ENDPOINT, where it is set), then run the same command again.{offer}"
        ) from error
    except ValueError as error:  # as huggingface_hub finds a name that no repository can have
        raise StageError(f"{where} cannot be: {error}. Correct the url.") from error
    except errors.RevisionNotFoundError as error:
        raise StageError(
            f"{where} has no revision {revision!r}. Correct what is behind @."
        ) from error
    except errors.EntryNotFoundError as error:
        raise NoSuchFile(
            f"{where} has no {file} at {revision}. Name the checkpoint that it has: hf:{repo}/FILE."
        ) from error
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise StageError(f"{where} {_closed(error, repo, token)}") from error
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise StageError(f"{where} {_closed(error, repo, token)}") from error
        words = address.without_secrets(str(error).splitlines()[0])
        raise StageError(f"{where} cannot be had: {words}") from error
    if metadata.commit_hash is None:
        raise StageError(
            f"{where}: {endpoint()} does not answer as a hub does: it "
            "names no commit. Check HF_ENDPOINT."
        )
    sha256 = _sha256_in(metadata.etag or "")
    return HubFile(
        # A branch that moves while a file of it is downloaded changes nothing.
        huggingface_hub.hf_hub_url(repo, file, revision=metadata.commit_hash),
        {"Authorization": f"Bearer {token}"} if token else {},
        metadata.size,
        sha256,
        metadata.commit_hash,
        _cached(repo, metadata.commit_hash, file, sha256),
    )


def _find_offline(repo: str, revision: str, file: str, where: str) -> HubFile:
    """A file of a revision, from huggingface_hub's cache alone; else `NoSuchFile`."""
    import huggingface_hub

    copy = _cached(repo, revision, file)
    if copy is None:
        raise NoSuchFile(
            f"{where}: HF_HUB_OFFLINE is set, and huggingface_hub has no {file} at {revision} in "
            f"its cache, {huggingface_hub.constants.HF_HUB_CACHE}. Unset HF_HUB_OFFLINE, or run "
            f"`hf download {repo} {file} --revision {revision}` where there is a network, then run "
            "the same command again."
        )
    # A link to what is named after the hub's ETag, of a large file its SHA-256.
    sha256 = _sha256_in(copy.readlink().name) if copy.is_symlink() else None
    depth = len(Path(file).parts)  # below snapshots/<commit>
    return HubFile("", {}, copy.stat().st_size, sha256, copy.parents[depth - 1].name, copy)


def _sha256_in(etag: str) -> str | None:
    return etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None


def _cached(repo: str, revision: str, file: str, sha256: str | None = None) -> Path | None:
    """Where huggingface_hub has a file of a revision in its cache.

    :param sha256: of a large file, which may be there as that of another commit.
    """
    import huggingface_hub
    from huggingface_hub.file_download import repo_folder_name

    try:
        copy = huggingface_hub.try_to_load_from_cache(repo, file, revision=revision)
    except ValueError:  # a name that no file can have
        return None
    if isinstance(copy, str):
        return Path(copy)
    folder = Path(huggingface_hub.constants.HF_HUB_CACHE)
    blob = folder / repo_folder_name(repo_id=repo, repo_type="model") / "blobs" / (sha256 or "none")
    return blob if blob.is_file() else None


def hide_secrets_in_log() -> None:
    """Let huggingface_hub not log addresses in full: it does when it tries an upload again."""
    for handler in logging.getLogger("huggingface_hub").handlers:
        if _without_secrets not in handler.filters:
            handler.addFilter(_without_secrets)


def _without_secrets(record: logging.LogRecord) -> bool:
    record.msg, record.args = address.without_secrets(record.getMessage()), ()
    return True


def endpoint() -> str:
    """The hub's address, as it may be shown."""
    import huggingface_hub

    return address.shown(huggingface_hub.constants.ENDPOINT)


def _closed(error: Exception, repo: str, token: str | None) -> str:
    """What to do about a repository that may not be read; the hub calls it missing, too."""
    page = f"https://huggingface.co/{repo}"
    from huggingface_hub.errors import GatedRepoError

    if isinstance(error, GatedRepoError) and token:
        return f"is gated, and this account may not read it yet: ask for access at {page}."
    if token:
        return f"is not there, or the account of the token may not read it. See {page}."
    return (
        f"is not there, or may be read only after logging in: run `hf auth login`, or set HF_TOKEN "
        f"to a token that may read {page}."
    )


def read_config(repo: str, commit: str, table: str) -> dict[str, Any] | None:
    """The ``config.json`` of a repository at a commit; None where it has none.

    :raises StageError: when the hub refuses it, or it is not a table in JSON.
    """
    try:
        file = find(repo, commit, CONFIG, table)
    except NoSuchFile:
        return None
    if file.copy is not None:
        return parse_config(file.copy, f"{table} url: {file.copy}")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / CONFIG
        download.fetch(Request(file.url, file.sha256, file.size, table, file.headers), copy)
        return parse_config(copy, f"{table} url: {CONFIG} of hf:{repo}")


def parse_config(path: Path, what: str) -> dict[str, Any]:
    """A ``config.json``, read; a `StageError` when it is not a table in JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError as error:
        raise StageError(f"{what} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise StageError(
            f"{what} is not a configuration of a model: it is {type(content).__name__}"
        )
    return content


def copy_repository(repo: str, revision: str, folder: Path, only: str = "") -> None:
    """Download all files of a repository at one commit into a folder, or ``only`` one.

    :raises StageError: when there is no such repository or revision, or it may not be read.
    """
    import huggingface_hub
    from httpx2 import TransportError
    from huggingface_hub import errors
    from huggingface_hub.utils.tqdm import disable_progress_bars

    hide_secrets_in_log()
    network.hub_client()
    disable_progress_bars()
    where, hub = f"hf:{repo}", huggingface_hub.HfApi()
    try:
        commit = hub.repo_info(repo, revision=revision, timeout=network.ANSWER).sha
        for each in hub.list_repo_tree(repo, recursive=True, revision=commit):
            if isinstance(each, huggingface_hub.RepoFile) and only in ("", each.path):
                hub.hf_hub_download(repo, each.path, revision=commit, local_dir=folder)
    except (errors.OfflineModeIsEnabled, TransportError) as error:
        raise StageError(
            f"{where}: {endpoint()} cannot be reached: "
            f"{address.without_secrets(str(error))}. Check the network (and HF_ENDPOINT and "
            "HF_HUB_OFFLINE, where they are set)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise StageError(f"{where} has no revision {revision!r}.") from error
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise StageError(f"{where} {_closed(error, repo, huggingface_hub.get_token())}") from error
    except (errors.HfHubHTTPError, ValueError) as error:
        words = address.without_secrets(str(error).splitlines()[0])
        raise StageError(f"{where} cannot be had: {words}") from error
