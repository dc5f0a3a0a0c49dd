"""`doit serve`: the deployed models on a page, to try by hand."""

from __future__ import annotations

import errno
import sys
import threading
from typing import TYPE_CHECKING, Any

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from tasks.commands.doit_commands import Plain, Suggesting
from tasks.config.schema import Configuration
from tasks.console.invocation import command
from tasks.web import packages
from tasks.web.packages import PAGE

if TYPE_CHECKING:
    from starlette.applications import Starlette

DEFAULT_PORT = 8000


class Serve(Plain, Suggesting, DoitCmdBase):  # type: ignore[misc]
    """Serves the page until Ctrl-C; builds may run beside it (an entry point names it)."""

    doc_purpose = "try the deployed models by hand, on a page in the browser"
    doc_usage = "[OPTIONS]"
    doc_description = "Serves on 127.0.0.1 until Ctrl-C. What is built meanwhile needs a reload."
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
        serve(config, params["port"], params["open"])
        return 0


def deployed(config: Configuration) -> list[str]:
    """The configured models that are deployed, by name."""
    return [target.name for target in config.targets if target.manifest.is_file()]


def application(config: Configuration) -> Starlette:
    """The page, what it loads of npm, and each model's deploy folder under ``/models/<name>``."""
    from tasks.web import server

    folders = {f"/models/{target.name}": target.deploy for target in config.targets}
    folders |= {**packages.libraries(), "/": PAGE}
    return server.application(folders, {"/models.json": lambda: deployed(config)})


def serve(config: Configuration, port: int, open_page: bool) -> None:
    """Serve until Ctrl-C.

    :param port: 0 is `DEFAULT_PORT`, or a free one if that is taken.
    :raises InvalidCommand: when the port is taken or npm cannot install the page's packages.
    """
    from tasks.web.server import serving

    if not all((packages.FOLDER / "node_modules" / name).is_dir() for name in packages.LIBRARIES):
        sys.stdout.write("Installing the packages of npm that the page needs …\n")
        sys.stdout.flush()
        problem = packages.install()
        if problem is not None:
            raise InvalidCommand(f"the packages of npm could not be installed: {problem}")
    app = application(config)
    for attempt in (port,) if port else (DEFAULT_PORT, 0):
        try:
            with serving(app, attempt) as address:
                _announce(config, address, open_page)
                threading.Event().wait()
        except KeyboardInterrupt:
            sys.stdout.write("\nStopped.\n")
            return
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            taken = error.errno == errno.EADDRINUSE
    why = "is in use" if taken else "may not be listened on by this user"
    raise InvalidCommand(f"port {port or DEFAULT_PORT} {why}; choose another with --port")


def _announce(config: Configuration, address: str, open_page: bool) -> None:
    models = (
        ", ".join(deployed(config)) or f"no model yet: run {command('demo')} or {command('deploy')}"
    )
    sys.stdout.write(f"{address}  (deployed: {models})\nCtrl-C stops it.\n")
    sys.stdout.flush()
    if open_page:
        import webbrowser

        webbrowser.open(address)
