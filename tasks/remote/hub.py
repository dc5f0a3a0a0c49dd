"""Finds a file in a repository of the Hugging Face hub: its address, size and SHA-256.

huggingface_hub makes the requests, with the token of the environment (``HF_TOKEN``) or of
`hf auth login`, to ``HF_ENDPOINT`` if that is set. The file is then downloaded like any other
(`download.fetch`), unless huggingface_hub has it in its cache; ``HF_HUB_OFFLINE`` requires that.
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

    ``sha256`` comes from the hub, for a large file; ``headers`` go with the request for the file;
    ``copy`` is its path in huggingface_hub's cache.
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
    """Find a file on the hub, or with ``HF_HUB_OFFLINE`` in huggingface_hub's cache.

    :param revision: a branch, a tag or a commit.
    :raises download.Unreachable: when no connection to the hub is possible.
    :raises StageError: when the repository, revision or file is missing, or access is denied.
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
        offer = " HF_HUB_OFFLINE=1 uses the file in huggingface_hub's cache: "
        offer = f"{offer}{copy}." if copy else ""
        raise download.Unreachable(
            f"{where}: {endpoint()} cannot be reached: "
            f"{address.without_secrets(network.in_words(error))}. Check the network (and "
            f"HF_ENDPOINT, if it is set), then run the same command again.{offer}"
        ) from error
    except ValueError as error:  # huggingface_hub refuses a name that no repository can have
        raise StageError(f"{where} is not a valid repository: {error}. Correct the url.") from error
    except errors.RevisionNotFoundError as error:
        raise StageError(
            f"{where} has no revision {revision!r}. Correct the part after @."
        ) from error
    except errors.EntryNotFoundError as error:
        raise NoSuchFile(
            f"{where} has no {file} at {revision}. Name its checkpoint file, as in hf:{repo}/FILE."
        ) from error
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise StageError(f"{where} {_closed(error, repo, token)}") from error
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise StageError(f"{where} {_closed(error, repo, token)}") from error
        words = address.without_secrets(str(error).splitlines()[0])
        raise StageError(f"{where} cannot be read: {words}") from error
    if metadata.commit_hash is None:
        raise StageError(
            f"{where}: {endpoint()} does not answer like a hub: its answer "
            "names no commit. Check HF_ENDPOINT."
        )
    sha256 = _sha256_in(metadata.etag or "")
    return HubFile(
        # The commit stays the same even if the branch moves during the download.
        huggingface_hub.hf_hub_url(repo, file, revision=metadata.commit_hash),
        {"Authorization": f"Bearer {token}"} if token else {},
        metadata.size,
        sha256,
        metadata.commit_hash,
        _cached(repo, metadata.commit_hash, file, sha256),
    )


def _find_offline(repo: str, revision: str, file: str, where: str) -> HubFile:
    """Find a file of a revision only in huggingface_hub's cache; raises `NoSuchFile`."""
    import huggingface_hub

    copy = _cached(repo, revision, file)
    if copy is None:
        raise NoSuchFile(
            f"{where}: HF_HUB_OFFLINE is set, but huggingface_hub has no {file} at {revision} in "
            f"its cache, {huggingface_hub.constants.HF_HUB_CACHE}. Unset HF_HUB_OFFLINE, or run "
            f"`hf download {repo} {file} --revision {revision}` with a network connection, then "
            "run the same command again."
        )
    # A link to a file named after the hub's ETag, which is the SHA-256 for a large file.
    sha256 = _sha256_in(copy.readlink().name) if copy.is_symlink() else None
    depth = len(Path(file).parts)  # below snapshots/<commit>
    return HubFile("", {}, copy.stat().st_size, sha256, copy.parents[depth - 1].name, copy)


def _sha256_in(etag: str) -> str | None:
    return etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None


def _cached(repo: str, revision: str, file: str, sha256: str | None = None) -> Path | None:
    """The path of a file of a revision in huggingface_hub's cache; None if it is not there.

    :param sha256: the hash of a large file, which the cache can have from another commit.
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
    """Keep huggingface_hub from logging full addresses, as it does when it repeats an upload."""
    for handler in logging.getLogger("huggingface_hub").handlers:
        if _without_secrets not in handler.filters:
            handler.addFilter(_without_secrets)


def _without_secrets(record: logging.LogRecord) -> bool:
    record.msg, record.args = address.without_secrets(record.getMessage()), ()
    return True


def endpoint() -> str:
    """The hub's address, without secrets."""
    import huggingface_hub

    return address.shown(huggingface_hub.constants.ENDPOINT)


def _closed(error: Exception, repo: str, token: str | None) -> str:
    """What to do about an unreadable repository, which the hub also reports as missing."""
    page = f"https://huggingface.co/{repo}"
    from huggingface_hub.errors import GatedRepoError

    if isinstance(error, GatedRepoError) and token:
        return f"is gated, and this account has no access yet: request access at {page}."
    if token:
        return f"does not exist, or the token's account cannot read it. See {page}."
    return (
        f"does not exist, or needs a login: run `hf auth login`, or set HF_TOKEN to a token that "
        f"can read {page}."
    )


def read_config(repo: str, commit: str, table: str) -> dict[str, Any] | None:
    """The ``config.json`` of a repository at a commit; None if there is none.

    :raises StageError: when the hub refuses it, or it is not a JSON object.
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
    """Read a ``config.json``; raises a `StageError` if it is not a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError as error:
        raise StageError(f"{what} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise StageError(
            f"{what} is not a model configuration: expected a JSON object, found "
            f"{type(content).__name__}"
        )
    return content


def copy_repository(repo: str, revision: str, folder: Path, only: str = "") -> None:
    """Download all files of a repository at one commit into a folder, or ``only`` one.

    :raises StageError: when the repository or revision is missing, or access is denied.
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
            "HF_HUB_OFFLINE, if they are set)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise StageError(f"{where} has no revision {revision!r}.") from error
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise StageError(f"{where} {_closed(error, repo, huggingface_hub.get_token())}") from error
    except (errors.HfHubHTTPError, ValueError) as error:
        words = address.without_secrets(str(error).splitlines()[0])
        raise StageError(f"{where} cannot be read: {words}") from error
