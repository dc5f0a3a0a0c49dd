"""A repository of the Hugging Face hub that files are put into: in one commit, or not at all.

huggingface_hub asks, uploads and commits, with the token of the environment (``HF_TOKEN``) or of
`hf auth login`, at ``HF_ENDPOINT`` where that is set.
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

_WORTH_TELLING = 1 << 20  # bytes of an upload

_NOTHING = "Nothing was published."
_UNKNOWN = (
    "Whether the commit arrived is not known: run the same command again, which publishes what is "
    "missing."
)


class RemoteFile(NamedTuple):
    """A file on the hub: its SHA-256 where it is stored as a large file, else its git blob's id."""

    size: int
    sha256: str | None
    blob: str


class Remote(NamedTuple):
    """What a branch holds; ``commit`` is None where there is no such branch."""

    exists: bool  # the repository
    commit: str | None
    files: Mapping[str, RemoteFile]


class Repository:
    """A branch of a repository.

    Every method raises a `StageError` where the hub refuses, or does not answer as a hub does.
    """

    def __init__(self, name: str, branch: str) -> None:
        self.name = name
        self.branch = branch

    @cached_property
    def _api(self) -> HfApi:
        import huggingface_hub
        from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

        from tasks.remote.hub import hide_secrets_in_log

        # On a terminal huggingface_hub shows its bars; elsewhere their every step would be a line.
        (enable_progress_bars if sys.stderr.isatty() else disable_progress_bars)()
        network.hub_client()
        hide_secrets_in_log()
        return huggingface_hub.HfApi()

    @property
    def endpoint(self) -> str:
        """The hub's address, as it may be shown."""
        return address.shown(str(self._api.endpoint))

    @property
    def address(self) -> str:
        """Where a person sees the branch."""
        branch = "" if self.branch == "main" else f"/tree/{self.branch}"
        return f"{self.endpoint}/{self.name}{branch}"

    @property
    def has_token(self) -> bool:
        """Whether there is a token to ask with."""
        import huggingface_hub

        return huggingface_hub.get_token() is not None

    def look(self) -> Remote:
        """What the branch holds now."""
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
        """The text of a file at a commit, of which ``folder`` gets a copy."""
        import huggingface_hub

        with self._in_words(_NOTHING):
            copy = huggingface_hub.hf_hub_download(
                self.name, file, revision=commit, local_dir=folder
            )
            return Path(copy).read_text(encoding="utf-8", errors="replace")

    def make(self, private: bool) -> None:
        """Make the repository and the branch where they are not there."""
        with self._in_words(_NOTHING):
            self._api.create_repo(self.name, private=private, exist_ok=True)
            if self.branch != "main":
                self._api.create_branch(self.name, branch=self.branch, exist_ok=True)

    def upload(self, files: Mapping[str, Path | bytes]) -> list[CommitOperationAdd]:
        """Send the content of large files, which nothing names until they are committed.

        :param files: by their paths in the repository.
        """
        from huggingface_hub import CommitOperationAdd

        operations = []
        for name, content in files.items():
            with self._in_words(_NOTHING):
                operation = CommitOperationAdd(name, content)
                if operation.upload_info.size >= _WORTH_TELLING:
                    size = mebibytes(operation.upload_info.size)
                    over = "\r\033[K" if sys.stderr.isatty() else ""  # the reporter's line
                    sys.stderr.write(f"{over}{self.name}: uploading {name}, {size}\n")
                self._api.preupload_lfs_files(
                    self.name, [operation], revision=self.branch, free_memory=False
                )
            if operation._should_ignore:  # which huggingface_hub would pass over without a word
                raise StageError(
                    f"{self.name} has a .gitignore that leaves out {name}. {_NOTHING} Remove that "
                    "line of it on the hub, then run the same command again."
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
        """Commit what was uploaded, and the removal of files, at once; returns the new commit.

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
        """What goes wrong with the hub, as a `StageError`.

        :param consequence: what became of the files if the connection breaks off.
        """
        from httpx2 import TransportError
        from huggingface_hub import errors

        try:
            yield
        except errors.OfflineModeIsEnabled as error:
            raise StageError(
                f"huggingface_hub is offline by HF_HUB_OFFLINE. {_NOTHING} Unset it, then run the "
                "same command again."
            ) from error
        except (errors.HfHubHTTPError, TransportError, ValueError, KeyError, RuntimeError) as error:
            # An upload's own error is the cause of a RuntimeError.
            wrapped = isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception)
            cause = error.__cause__ if wrapped else error
            raise StageError(self._words(cause, consequence)) from error
        except OSError as error:
            if error.errno is not None:
                raise  # of the disk
            raise StageError(self._words(error, consequence)) from error

    def _words(self, error: BaseException | None, consequence: str) -> str:
        from httpx2 import TransportError
        from huggingface_hub import errors

        words = address.without_secrets(str(error)).strip()
        if isinstance(error, TransportError | ConnectionError | TimeoutError):
            return (
                f"{self.endpoint} cannot be reached, or broke off: "
                f"{words or type(error).__name__}. {consequence} Check the network (and "
                "HF_ENDPOINT, where it is set), then run the same command again."
            )
        if isinstance(error, errors.HfHubHTTPError):
            reason = address.without_secrets(error.server_message or words.splitlines()[0])
            return _refusal(self.name, error.response.status_code, reason)
        return (
            f"{self.endpoint} does not take what is to go to {self.name}, or does not answer as a "
            f"hub does: {type(error).__name__}: {words}. {_NOTHING}"
        )


def _refusal(repo: str, status: int, reason: str) -> str:
    """What to say of an HTTP status that the hub answers, with its own reason; pure."""
    if status == 412:
        return (
            f"{repo} was changed by another while this was published. {_NOTHING} Run the same "
            "command again: it compares with what is there now."
        )
    if status in (401, 404):
        return (
            f"The hub does not know {repo}, or not the token: {reason}. {_NOTHING} Run `hf auth "
            "login`, or set HF_TOKEN to a token that may write there."
        )
    if status in (402, 403, 413):
        return (
            f"The hub refuses to have {repo} written: {reason}. {_NOTHING} Check that the token "
            "may write there (https://huggingface.co/settings/tokens), and what space the account "
            "has."
        )
    if status == 429:
        return f"The hub asks to wait: {reason}. {_NOTHING} Run the same command again later."
    return f"The hub answers {status} about {repo}: {reason}. Run the same command again later."
