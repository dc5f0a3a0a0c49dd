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
# Hosts that stand for all addresses of the machine; a browser cannot open them.
EVERYWHERE = ("0.0.0.0", "::", "")


class Serve(Plain, Suggesting, DoitCmdBase):  # type: ignore[misc]
    """Serves the page until Ctrl-C; builds can run meanwhile (an entry point names it)."""

    doc_purpose = "try the deployed models by hand, on a page in the browser"
    doc_usage = "[OPTIONS]"
    doc_description = (
        "Serves on 127.0.0.1, or on another host, until Ctrl-C. Reload the page to see models "
        "built meanwhile."
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
            "help": "address to listen on; 0.0.0.0 for all addresses (default: 127.0.0.1)",
        },
        {
            "name": "names",
            "short": "",
            "long": "name",
            "type": list,
            "default": [],
            "help": "another host name of the page; can be repeated",
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
            raise InvalidCommand(f"`doit serve` takes no arguments, but got: {' '.join(args)}")
        self.loader.setup(params)
        config = self.loader.namespace["CONFIG"]
        serve(config, params["port"], params["open"], params["host"], params["names"])
        return 0


def deployed(config: Configuration) -> list[str]:
    """The names of the deployed models that have an encoder, which the page needs."""
    targets = [target for target in config.targets if target.client.encodes]
    return [target.name for target in targets if target.manifest.is_file()]


def reachable(host: str, names: Sequence[str]) -> list[str]:
    """The host names that a request can have when the page is served on a host.

    :raises InvalidCommand: when a name is invalid, or a host for all addresses has no names.
    """
    for name in names:
        if not re.fullmatch(r"[\w.-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", name, re.ASCII):
            raise InvalidCommand(
                f"--name {name}: expected a host name or an address as typed into a browser, "
                "without a port, a path or *"
            )
    if host in EVERYWHERE and not names:
        raise InvalidCommand(
            f"--host {host} listens on all addresses of this machine. Add --name for each host "
            "name of the page, as in `--name localhost --name lab42`. Requests with other names "
            "are refused, because any website could otherwise read the models"
        )
    return [*names] if host in EVERYWHERE else [host, *names]


def application(config: Configuration, names: Sequence[str] = ()) -> Starlette:
    """The page, its npm packages, and each model's deploy folder under ``/models/<name>``.

    :param names: host names of the page, besides loopback's.
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
    :param names: host names of the page, besides the host and loopback's.
    :raises InvalidCommand: when the port is taken, the host is not this machine's, names are
        missing, or npm cannot install the page's packages.
    """
    from tasks.web.server import serving

    allowed = reachable(host, names)
    if not all((packages.FOLDER / "node_modules" / name).is_dir() for name in packages.LIBRARIES):
        sys.stdout.write("Installing the page's npm packages …\n")
        sys.stdout.flush()
        problem = packages.install()
        if problem is not None:
            raise InvalidCommand(f"could not install the page's npm packages: {problem}")
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
                    f"--host {host} is not an address of this machine ({error.strerror}); "
                    "use 0.0.0.0 to listen on all its addresses"
                ) from error
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            taken = error.errno == errno.EADDRINUSE
    why = "is in use" if taken else "needs permissions that this user lacks"
    raise InvalidCommand(f"port {port or DEFAULT_PORT} {why}; choose another with --port")


def _announce(config: Configuration, address: str, open_page: bool) -> None:
    models = (
        ", ".join(deployed(config)) or f"none yet; run {command('demo')} or {command('deploy')}"
    )
    decoders_only = [target.name for target in config.targets if not target.client.encodes]
    left_out = (
        f"Not shown, because they have only a decoder: {', '.join(decoders_only)}.\n"
        if decoders_only
        else ""
    )
    sys.stdout.write(f"{address}  (deployed: {models})\n{left_out}Ctrl-C stops it.\n")
    sys.stdout.flush()
    if open_page:
        import webbrowser

        webbrowser.open(address)
