"""Uploads files to a repository of the Hugging Face hub: in one commit, or not at all.

huggingface_hub makes the requests, with the token of the environment (``HF_TOKEN``) or of
`hf auth login`, to ``HF_ENDPOINT`` if that is set.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks.console import address
from tasks.console.sizes import mebibytes
from tasks.remote import network
from tasks.system.errors import StageError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

_WORTH_A_LINE = 1 << 20  # bytes of an upload

_NOTHING = "Nothing was published."
_UNKNOWN = (
    "The commit might have arrived or not: run the same command again, which publishes the missing "
    "files."
)


class RemoteFile(NamedTuple):
    """A file on the hub: its SHA-256 if it is stored as a large file, else its git blob's id."""

    size: int
    sha256: str | None
    blob: str


class Remote(NamedTuple):
    """The content of a branch; ``commit`` is None if there is no such branch."""

    exists: bool  # the repository
    commit: str | None
    files: Mapping[str, RemoteFile]


class Repository:
    """A branch of a repository.

    Every method raises a `StageError` if the hub refuses, or does not answer like a hub.
    """

    def __init__(self, name: str, branch: str) -> None:
        self.name = name
        self.branch = branch

    @cached_property
    def _api(self) -> HfApi:
        import huggingface_hub
        from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

        from tasks.remote.hub import hide_secrets_in_log

        # huggingface_hub shows its bars only on a terminal; elsewhere each step would be a line.
        (enable_progress_bars if sys.stderr.isatty() else disable_progress_bars)()
        network.hub_client()
        hide_secrets_in_log()
        return huggingface_hub.HfApi()

    @property
    def endpoint(self) -> str:
        """The hub's address, without secrets."""
        return address.shown(str(self._api.endpoint))

    @property
    def address(self) -> str:
        """The branch's page."""
        branch = "" if self.branch == "main" else f"/tree/{self.branch}"
        return f"{self.endpoint}/{self.name}{branch}"

    @property
    def has_token(self) -> bool:
        """Whether there is a token."""
        import huggingface_hub

        return huggingface_hub.get_token() is not None

    def look(self) -> Remote:
        """The branch's current content."""
        from huggingface_hub import RepoFile, errors

        with self._in_words(_NOTHING):
            try:
                commit = self._api.repo_info(
                    self.name, revision=self.branch, timeout=network.ANSWER
                ).sha
            except errors.RevisionNotFoundError:
                return Remote(True, None, {})
            except errors.GatedRepoError:
                raise
            except errors.RepositoryNotFoundError:
                return Remote(False, None, {})
            files = {
                each.path: RemoteFile(
                    each.size, each.lfs.sha256 if each.lfs else None, each.blob_id
                )
                for each in self._api.list_repo_tree(self.name, recursive=True, revision=commit)
                if isinstance(each, RepoFile)
            }
        return Remote(True, commit, files)

    def read(self, file: str, commit: str, folder: Path) -> str:
        """The text of a file at a commit; a copy goes to ``folder``."""
        import huggingface_hub

        with self._in_words(_NOTHING):
            copy = huggingface_hub.hf_hub_download(
                self.name, file, revision=commit, local_dir=folder
            )
            return Path(copy).read_text(encoding="utf-8", errors="replace")

    def make(self, private: bool) -> None:
        """Create the repository and the branch if they are missing."""
        with self._in_words(_NOTHING):
            self._api.create_repo(self.name, private=private, exist_ok=True)
            if self.branch != "main":
                self._api.create_branch(self.name, branch=self.branch, exist_ok=True)

    def upload(self, files: Mapping[str, Path | bytes]) -> list[CommitOperationAdd]:
        """Upload the content of large files, which stays invisible until it is committed.

        :param files: by their paths in the repository.
        """
        from huggingface_hub import CommitOperationAdd

        operations = []
        for name, content in files.items():
            with self._in_words(_NOTHING):
                operation = CommitOperationAdd(name, content)
                if operation.upload_info.size >= _WORTH_A_LINE:
                    size = mebibytes(operation.upload_info.size)
                    over = "\r\033[K" if sys.stderr.isatty() else ""  # the reporter's line
                    sys.stderr.write(f"{over}{self.name}: uploading {name}, {size}\n")
                self._api.preupload_lfs_files(
                    self.name, [operation], revision=self.branch, free_memory=False
                )
            if operation._should_ignore:  # huggingface_hub would skip it silently
                raise StageError(
                    f"{self.name} has a .gitignore that excludes {name}. {_NOTHING} Remove that "
                    "line on the hub, then run the same command again."
                )
            operations.append(operation)
        return operations

    def commit(
        self,
        uploaded: Sequence[CommitOperationAdd],
        removed: Sequence[str],
        message: str,
        parent: str | None,
    ) -> str:
        """Commit the uploads and the removals together, and return the new commit.

        :param parent: the commit that the branch must still be at.
        """
        from huggingface_hub import CommitOperationDelete

        with self._in_words(_UNKNOWN):
            made = self._api.create_commit(
                self.name,
                [*uploaded, *(CommitOperationDelete(name) for name in removed)],
                commit_message=message,
                revision=self.branch,
                parent_commit=parent,
            )
        return str(made.oid)

    @contextmanager
    def _in_words(self, consequence: str) -> Iterator[None]:
        """Turn errors of the hub into a `StageError`.

        :param consequence: the sentence about the files if the connection breaks.
        """
        from httpx2 import TransportError
        from huggingface_hub import errors

        try:
            yield
        except errors.OfflineModeIsEnabled as error:
            raise StageError(
                f"HF_HUB_OFFLINE keeps huggingface_hub offline. {_NOTHING} Unset it, then run the "
                "same command again."
            ) from error
        except (errors.HfHubHTTPError, TransportError, ValueError, KeyError, RuntimeError) as error:
            # An upload's own error is the cause of a RuntimeError.
            wrapped = isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception)
            cause = error.__cause__ if wrapped else error
            raise StageError(self._words(cause, consequence)) from error
        except OSError as error:
            if error.errno is not None:
                raise  # an error of the disk
            raise StageError(self._words(error, consequence)) from error

    def _words(self, error: BaseException | None, consequence: str) -> str:
        from httpx2 import TransportError
        from huggingface_hub import errors

        words = address.without_secrets(str(error)).strip()
        if isinstance(error, TransportError | ConnectionError | TimeoutError):
            return (
                f"{self.endpoint} cannot be reached, or the connection broke: "
                f"{words or type(error).__name__}. {consequence} Check the network (and "
                "HF_ENDPOINT, if it is set), then run the same command again."
            )
        if isinstance(error, errors.HfHubHTTPError):
            reason = address.without_secrets(error.server_message or words.splitlines()[0])
            return _refusal(self.name, error.response.status_code, reason)
        return (
            f"{self.endpoint} does not accept the upload to {self.name}, or does not answer like a "
            f"hub: {type(error).__name__}: {words}. {_NOTHING}"
        )


def _refusal(repo: str, status: int, reason: str) -> str:
    """The message for the hub's HTTP status, with its own reason; pure."""
    if status == 412:
        return (
            f"Somebody else changed {repo} during this publishing. {_NOTHING} Run the same command "
            "again: it compares with the current files."
        )
    if status in (401, 404):
        return (
            f"The hub does not know {repo} or the token: {reason}. {_NOTHING} Run `hf auth login`, "
            "or set HF_TOKEN to a token with write access."
        )
    if status in (402, 403, 413):
        return (
            f"The hub refuses to write to {repo}: {reason}. {_NOTHING} Check that the token has "
            "write access (https://huggingface.co/settings/tokens), and that the account has space."
        )
    if status == 429:
        return f"The hub requests a wait: {reason}. {_NOTHING} Run the same command again later."
    return f"The hub answers {status} about {repo}: {reason}. Run the same command again later."
