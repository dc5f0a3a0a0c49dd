"""The allowed values of configuration keys: types, each with its rule."""

# Without `from __future__ import annotations`: cattrs ignores the rules of annotations in strings.
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from tasks.clients.contract import Format, Precision
from tasks.clients.registry import CLIENT_NAMES
from tasks.config.location import ESCAPES
from tasks.console import address
from tasks.model.families.registry import MODEL_TYPES
from tasks.model.published import AUTO

# One folder or file name: no separator, nothing hidden, and none of doit's `:` and `*`.
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
PLAIN_NAME_RULE = "letters, digits and . _ + - (no path: it must stay in the deploy folder)"

DEFAULT_CLIENT = "samexporter"

# The owner or the name of a repository, as the Hugging Face hub takes them.
_HUB_NAME = r"(?!.*(--|\.\.))(?!.*\.git$)[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"

# LayerNormalization entered ONNX with opset 17; torch's TorchScript exporter stops at 20.
OPSETS = range(17, 21)


class Rule(NamedTuple):
    """The allowed values of a key: as text, and as a check for values of the right type."""

    allowed: str
    holds: Callable[[Any], object]


def _one_of(names: Collection[str]) -> Rule:
    return Rule(", ".join(names), lambda name: name in names)


def _some_of(names: Collection[str]) -> Rule:
    return Rule(
        f"a list of some of {', '.join(names)}",
        lambda chosen: chosen and all(each in names for each in chosen),
    )


def _matching(pattern: str, allowed: str) -> Rule:
    return Rule(allowed, lambda text: re.fullmatch(pattern, text))


def is_repository(name: str) -> bool:
    """Whether the hub accepts a name, in which {folder} and {model} are placeholders."""
    owner, slash, own = name.replace("{folder}", "f").replace("{model}", "m").partition("/")
    return bool(slash and re.fullmatch(_HUB_NAME, owner) and re.fullmatch(_HUB_NAME, own))


# Whether a browser must have run a model before it is deployed; "auto": if a browser is there.
Switch = Literal["auto"] | bool
OnOffAuto = Annotated[
    Switch,
    Rule('true, false or "auto"', lambda value: value == "auto" or isinstance(value, bool)),
]

Text = Annotated[str, Rule("a text that is not empty", str.strip)]
Share = Annotated[float, Rule("a number above 0, at most 1", lambda share: 0 < share <= 1)]
Part = Annotated[float, Rule("a number from 0 to 1", lambda part: 0 <= part <= 1)]
Positive = Annotated[float, Rule("a number above 0", lambda number: 0 < number < 1e9)]
Count = Annotated[int, Rule("a whole number, 1 to 1000", lambda count: 1 <= count <= 1000)]
Size = Annotated[int, Rule("a whole number of bytes above 0", lambda size: size > 0)]
ImageSize = Annotated[
    int,
    Rule(
        "a multiple of 32, 64 to 2048: strides and windows must divide it",
        lambda size: 64 <= size <= 2048 and size % 32 == 0,
    ),
]
Opset = Annotated[
    int,
    Rule(
        "17 (LayerNormalization needs it) to 20 (torch's TorchScript exporter ends there)",
        lambda opset: opset in OPSETS,
    ),
]
ClientName = Annotated[str, _one_of(CLIENT_NAMES)]
ClientNames = Annotated[tuple[str, ...], _some_of(CLIENT_NAMES)]
ModelType = Annotated[str, _one_of((AUTO, *MODEL_TYPES))]
Graphs = Annotated[tuple[str, ...], _some_of(("encoder", "decoder"))]
Precisions = Annotated[tuple[Precision, ...], _some_of(get_args(Precision))]
Formats = Annotated[tuple[Format, ...], _some_of(get_args(Format))]
Patterns = Annotated[
    tuple[str, ...],
    Rule(
        'a list of patterns relative to the project, as ["masks/*.tif"]',
        lambda patterns: all(patterns) and not any(Path(each).is_absolute() for each in patterns),
    ),
]
Scheduler = Annotated[
    str,
    _matching(
        r"off|(?:tcp|tls)://(?:[\w.-]+|\[[\da-fA-F:.]+\]):\d{1,5}",
        "tcp://HOST:PORT or tls://HOST:PORT, of a Dask scheduler, or off",
    ),
]
CacheAddress = Annotated[
    str,
    Rule(
        f"a folder, or an address that fsspec supports; {ESCAPES}",
        lambda url: url.strip() and not address.is_ambiguous(url),
    ),
]
Repository = Annotated[
    str,
    Rule(
        "OWNER/NAME of letters, digits and . _ - (which the hub accepts), with {folder} or {model} "
        'in it, as in "my-lab/{folder}"',
        is_repository,
    ),
]
Branch = Annotated[str, Rule("a branch: letters, digits and . _ + -", PLAIN_NAME.fullmatch)]
Folder = Annotated[
    str,
    Rule(PLAIN_NAME_RULE, lambda name: PLAIN_NAME.fullmatch(name.replace("{client}", "c"))),
]
Sha256 = Annotated[
    str, _matching(r"[0-9a-fA-F]{64}", "64 hexadecimal digits, as `sha256sum` prints them")
]
Function = Annotated[
    str, _matching(r"[a-z_][\w.]*:[a-z_]\w*", "module:function, of a module in the project")
]
