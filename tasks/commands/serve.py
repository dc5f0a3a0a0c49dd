"""`doit serve`: the deployed models on a page, to try by hand."""

from __future__ import annotations

import errno
import re
import socket
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from tasks.commands.doit_commands import Plain, Suggesting
from tasks.config.schema import Configuration
from tasks.console.invocation import command
from tasks.web import packages
from tasks.web.packages import PAGE
from tasks.web.server import HOST

if TYPE_CHECKING:
    from starlette.applications import Starlette

DEFAULT_PORT = 8000
# Those that stand for all addresses of the machine; nobody reaches it by them.
EVERYWHERE = ("0.0.0.0", "::", "")


class Serve(Plain, Suggesting, DoitCmdBase):  # type: ignore[misc]
    """Serves the page until Ctrl-C; builds may run beside it (an entry point names it)."""

    doc_purpose = "try the deployed models by hand, on a page in the browser"
    doc_usage = "[OPTIONS]"
    doc_description = (
        "Serves on 127.0.0.1, or on another host, until Ctrl-C. What is built meanwhile needs a "
        "reload."
    )
    cmd_options = (
        {
            "name": "port",
            "short": "p",
            "long": "port",
            "type": int,
            "default": 0,
            "help": f"port to listen on (default: {DEFAULT_PORT}, or a free one if it is taken)",
        },
        {
            "name": "host",
            "short": "",
            "long": "host",
            "type": str,
            "default": HOST,
            "help": "address to listen on, 0.0.0.0 for all of this machine's (default: 127.0.0.1)",
        },
        {
            "name": "names",
            "short": "",
            "long": "name",
            "type": list,
            "default": [],
            "help": "host name by which the page may be reached too; may be repeated",
        },
        {
            "name": "open",
            "short": "",
            "long": "open",
            "type": bool,
            "default": False,
            "help": "open the page in the default browser",
        },
    )

    def execute(self, params: Any, args: list[str]) -> int:
        """Load the configuration from dodo.py and serve; exit status 0 after Ctrl-C."""
        if args:
            raise InvalidCommand(f"`doit serve` takes no task: {' '.join(args)}")
        self.loader.setup(params)
        config = self.loader.namespace["CONFIG"]
        serve(config, params["port"], params["open"], params["host"], params["names"])
        return 0


def deployed(config: Configuration) -> list[str]:
    """The configured models that are deployed, by name; the page encodes, so no decoders alone."""
    targets = [target for target in config.targets if target.client.encodes]
    return [target.name for target in targets if target.manifest.is_file()]


def reachable(host: str, names: Sequence[str]) -> list[str]:
    """The host names that a request may have when the page is served on a host.

    :raises InvalidCommand: when a name is none, or nothing says by which it is to be reached.
    """
    for name in names:
        if not re.fullmatch(r"[\w.-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", name, re.ASCII):
            raise InvalidCommand(
                f"--name {name}: expected a host name or an address as a browser is given it, "
                "without a port, a path or *"
            )
    if host in EVERYWHERE and not names:
        raise InvalidCommand(
            f"--host {host} listens on all addresses of this machine: add --name with each host "
            "name by which the page is to be reached, as in `--name localhost --name lab42`; "
            "requests by another are refused, for any site could read the models by one of its own"
        )
    return [*names] if host in EVERYWHERE else [host, *names]


def application(config: Configuration, names: Sequence[str] = ()) -> Starlette:
    """The page, what it loads of npm, and each model's deploy folder under ``/models/<name>``.

    :param names: by which it may be reached, beside loopback's.
    """
    from tasks.web import server

    folders = {f"/models/{target.name}": target.deploy for target in config.targets}
    folders |= {**packages.libraries(), "/": PAGE}
    return server.application(folders, {"/models.json": lambda: deployed(config)}, names=names)


def serve(
    config: Configuration,
    port: int,
    open_page: bool,
    host: str = HOST,
    names: Sequence[str] = (),
) -> None:
    """Serve until Ctrl-C.

    :param port: 0 is `DEFAULT_PORT`, or a free one if that is taken.
    :param names: by which the page may be reached, beside the host and loopback's.
    :raises InvalidCommand: when the port is taken, the host is not this machine's, its names are
        missing, or npm cannot install the page's packages.
    """
    from tasks.web.server import serving

    allowed = reachable(host, names)
    if not all((packages.FOLDER / "node_modules" / name).is_dir() for name in packages.LIBRARIES):
        sys.stdout.write("Installing the packages of npm that the page needs …\n")
        sys.stdout.flush()
        problem = packages.install()
        if problem is not None:
            raise InvalidCommand(f"the packages of npm could not be installed: {problem}")
    app = application(config, allowed)
    for attempt in (port,) if port else (DEFAULT_PORT, 0):
        try:
            with serving(app, attempt, host) as address:
                if host in EVERYWHERE:
                    address = f"http://{names[0]}:{address.rpartition(':')[2]}"
                _announce(config, address, open_page)
                threading.Event().wait()
        except KeyboardInterrupt:
            sys.stdout.write("\nStopped.\n")
            return
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise InvalidCommand(
                    f"--host {host} is no address of this machine ({error.strerror}); "
                    "0.0.0.0 stands for all that it has"
                ) from error
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            taken = error.errno == errno.EADDRINUSE
    why = "is in use" if taken else "may not be listened on by this user"
    raise InvalidCommand(f"port {port or DEFAULT_PORT} {why}; choose another with --port")


def _announce(config: Configuration, address: str, open_page: bool) -> None:
    models = (
        ", ".join(deployed(config)) or f"no model yet: run {command('demo')} or {command('deploy')}"
    )
    alone = [target.name for target in config.targets if not target.client.encodes]
    left_out = f"Not shown, for they are decoders alone: {', '.join(alone)}.\n" if alone else ""
    sys.stdout.write(f"{address}  (deployed: {models})\n{left_out}Ctrl-C stops it.\n")
    sys.stdout.flush()
    if open_page:
        import webbrowser

        webbrowser.open(address)
