"""The tables of `config/models.toml`: each key with its type, default, range and meaning.

The tables in `docs/configuration.md` repeat the defaults and meanings; a test compares them.
"""

# Without `from __future__ import annotations`: cattrs ignores the rules of annotations in strings.
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from tasks.clients.contract import Format, MaskChoice, Precision, PromptChoice
from tasks.clients.registry import CLIENTS
from tasks.config.checks import LEAST_IOU, BrowserCheck, FidelityCheck, Tolerances, TrackingCheck
from tasks.config.location import ESCAPES
from tasks.config.models import (
    DEFAULT_OPSET,
    OPSET_RULE,
    OPSETS,
    CheckpointLocation,
    Source,
    Switch,
)
from tasks.config.schema import DEFAULT_CLIENT, HUB_NAME, PLAIN_NAME, Publishing
from tasks.console import address
from tasks.model import AttentionKind
from tasks.model.published import AUTO, MODEL_TYPES


class Rule(NamedTuple):
    """The values that a key may have: in words, and as a check of a value of the right type."""

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
    """Whether the hub takes a name, in which {folder} and {model} stand for other texts."""
    owner, slash, own = name.replace("{folder}", "f").replace("{model}", "m").partition("/")
    return bool(slash and HUB_NAME.fullmatch(owner) and HUB_NAME.fullmatch(own))


PLAIN_NAME_RULE = "letters, digits and . _ + - (no path: it must stay in the deploy folder)"

Text = Annotated[str, Rule("a text that is not empty", str.strip)]
Share = Annotated[float, Rule("a number above 0, at most 1", lambda share: 0 < share <= 1)]
Part = Annotated[float, Rule("a number from 0 to 1", lambda part: 0 <= part <= 1)]
Positive = Annotated[float, Rule("a number above 0", lambda number: 0 < number < 1e9)]
OnOffAuto = Annotated[
    Switch,
    Rule('true, false or "auto"', lambda value: value == "auto" or isinstance(value, bool)),
]
ClientName = Annotated[str, _one_of(CLIENTS)]
ClientNames = Annotated[tuple[str, ...], _some_of(CLIENTS)]
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
        f"a folder, or an address that fsspec knows; {ESCAPES}",
        lambda url: url.strip() and not address.is_ambiguous(url),
    ),
]
Repository = Annotated[
    str,
    Rule(
        "OWNER/NAME of letters, digits and . _ - (as the hub takes them), with {folder} or {model} "
        'in it, as "my-lab/{folder}"',
        is_repository,
    ),
]
Branch = Annotated[str, Rule("a branch: letters, digits and . _ + -", PLAIN_NAME.fullmatch)]
Folder = Annotated[
    str,
    Rule(PLAIN_NAME_RULE, lambda name: PLAIN_NAME.fullmatch(name.replace("{client}", "c"))),
]
Count = Annotated[int, Rule("a whole number, 1 to 1000", lambda count: 1 <= count <= 1000)]
Size = Annotated[int, Rule("a whole number of bytes above 0", lambda size: size > 0)]
ImageSize = Annotated[
    int,
    Rule(
        "a multiple of 32, 64 to 2048: strides and windows must divide it",
        lambda size: 64 <= size <= 2048 and size % 32 == 0,
    ),
]
Opset = Annotated[int, Rule(OPSET_RULE, lambda opset: opset in OPSETS)]
ModelType = Annotated[str, _one_of((AUTO, *MODEL_TYPES))]
Sha256 = Annotated[
    str, _matching(r"[0-9a-fA-F]{64}", "64 hexadecimal digits, as `sha256sum` prints them")
]
Function = Annotated[
    str, _matching(r"[a-z_][\w.]*:[a-z_]\w*", "module:function, of a module in the project")
]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BuildTable:
    dir: Annotated[Text, "downloads, intermediate graphs, reports, logs, records"] = "build"
    deploy: Annotated[Text, "models go to `<deploy>/<folder>/`; `doit deploy=DIR` replaces it"] = (
        "public/onnx-models/sam"
    )
    cluster: Annotated[
        Scheduler, "the Dask scheduler of workers ([scale.md](scale.md)), `tcp://HOST:PORT`"
    ] = "off"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class VerifyTable:
    encoder_tolerance: Annotated[
        Positive, "each encoder output, relative to its largest magnitude"
    ] = Tolerances.encoder
    mask_tolerance: Annotated[Positive, "mask logits (256 × 256, three masks)"] = Tolerances.masks
    score_tolerance: Annotated[Positive, "predicted IoU"] = Tolerances.scores


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BrowserTable:
    enabled: Annotated[
        OnOffAuto, '`true`: a missing browser is an error; `"auto"`: it is not; `false`: no proof'
    ] = "auto"
    executable: Annotated[
        Text | None, "a Chromium, Chrome or Edge, a path or name; else the first that is installed"
    ] = None
    webgpu: Annotated[bool, "the decoder must run on WebGPU too, where there is an adapter"] = True
    mask_iou: Annotated[Share, "the least IoU of the browser's masks with onnxruntime's"] = (
        BrowserCheck.mask_iou
    )
    encoder_tolerance: Annotated[Positive, "as in `[verify]`, but against onnxruntime"] = (
        BrowserCheck.tolerances.encoder
    )
    mask_tolerance: Annotated[Positive, "likewise"] = BrowserCheck.tolerances.masks
    score_tolerance: Annotated[Positive, "likewise"] = BrowserCheck.tolerances.scores


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CacheTable:
    url: Annotated[
        CacheAddress | None, "`doit cache=ADDRESS` replaces it, `doit cache=off` does without"
    ] = None
    write: Annotated[bool, "what is built here goes there"] = True
    proofs: Annotated[bool, "proofs of others are taken, instead of made here; see below"] = False
    options: Annotated[
        Mapping[str, Any] | None, 'for fsspec\'s file system, as `{ endpoint_url = "https://…" }`'
    ] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DefaultsTable:
    client: Annotated[
        ClientName | None, f'the program that loads the files; else `"{DEFAULT_CLIENT}"`'
    ] = None
    clients: Annotated[ClientNames | None, "a list of several, instead of `client`"] = None
    variants: Annotated[Precisions, "some of `fp32`, `fp16`, `q8`, `q4`, `q4f16`"] = ("fp32",)
    formats: Annotated[
        Formats | None, "`onnx`, `ort` or both, where the client loads them; else the client's"
    ] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FidelityTable:
    images: Annotated[Count, "drawn images, with four prompts on each"] = FidelityCheck.images
    fp32: Annotated[Share, "the least mean IoU with PyTorch's masks in single precision"] = (
        LEAST_IOU["fp32"]
    )
    fp16: Annotated[Share, "the same for this precision"] = LEAST_IOU["fp16"]
    q8: Annotated[Share, "likewise"] = LEAST_IOU["q8"]
    q4: Annotated[Share, "likewise"] = LEAST_IOU["q4"]
    q4f16: Annotated[Share, "likewise"] = LEAST_IOU["q4f16"]
    worst: Annotated[Share, "how far below the mean the worst mask may be"] = FidelityCheck.worst
    ranking_flips: Annotated[
        Part, "the share of prompts whose masks PyTorch may rank otherwise"
    ] = FidelityCheck.ranking_flips
    score_tolerance: Annotated[
        Positive, "by how much the score of a mask may differ from PyTorch's"
    ] = FidelityCheck.scores
    logit_tolerance: Annotated[
        Positive | None, "by how much a prompt's logits may differ from PyTorch's, see below"
    ] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TrackingTable:
    mask_iou: Annotated[Share, "the least mean IoU over all frames of the clips"] = (
        TrackingCheck.mask_iou
    )
    worst: Annotated[Share, "the least IoU of a single mask"] = TrackingCheck.worst
    score_tolerance: Annotated[
        Positive, "the largest difference of an object's score in logits; see below"
    ] = TrackingCheck.scores


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PublishTable:
    repo: Annotated[
        Repository | None, "OWNER/NAME on the Hugging Face hub, with `{folder}` or `{model}` in it"
    ]
    revision: Annotated[Branch, "a branch of it"] = Publishing.revision
    private: Annotated[bool, "a repository that is made for it is private"] = Publishing.private


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ModelTable:
    """A ``[models.<name>]``."""

    model_type: Annotated[
        ModelType, 'an architecture by name; `"auto"`: the one that fits the weights'
    ] = AUTO
    config: Annotated[Text | None, "a YAML file of an architecture, instead of `model_type`"] = None
    url: Annotated[CheckpointLocation | None, "the checkpoint, see below"]
    sha256: Annotated[Sha256 | None, "its hash; without it the build warns and prints it"] = None
    size: Annotated[Size | None, "its size in bytes"] = None
    client: Annotated[ClientName | None, "the program that loads the files"] = None
    clients: Annotated[ClientNames | None, "a list of several; else those of `[defaults]`"] = None
    folder: Annotated[
        Folder | None, "the folder in the deploy folder; else the `model_type`, or the name"
    ] = None
    deploy: Annotated[Text | None, "another deploy folder; else that of `[build]`"] = None
    default: Annotated[bool, "a bare `doit` builds it"] = True
    image_size: Annotated[
        ImageSize | None, "height and width of the input in pixels; else the architecture's"
    ] = None
    video: Annotated[bool, "builds tracking graphs too, see [video.md](video.md)"] = False
    opset: Annotated[Opset, "the ONNX opset, 17 to 20"] = DEFAULT_OPSET
    masks: Annotated[
        MaskChoice | None, "the masks that the decoder returns, see below; else the client's"
    ] = None
    prompts: Annotated[
        PromptChoice | None, '`"one"` or `"many"` prompts in a run; else the client\'s'
    ] = None
    attention: Annotated[AttentionKind, "how the encoder's attention is written"] = "plain"
    browser: Annotated[OnOffAuto | None, "as `[browser] enabled`; else that"] = None
    webgpu: Annotated[bool | None, "as `[browser] webgpu`; else that"] = None
    variants: Annotated[Precisions | None, "the precisions; else those of `[defaults]`"] = None
    formats: Annotated[Formats | None, "the file formats; else those of `[defaults]`"] = None
    truth: Annotated[
        Function | None, "`module:function` that draws images with known masks, see below"
    ] = None
    truth_data: Annotated[Patterns, 'the files that it reads, as `["masks/*.tif"]`'] = ()
    truth_iou: Annotated[Share, "the least mean IoU with them, from one click"] = Source.truth_iou
    license: Annotated[
        Text | None, "of the weights, for the manifest; needed to [publish](publish.md)"
    ] = None
    origin: Annotated[Text | None, "where the weights are from, for the manifest"] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tables:
    """A whole configuration file."""

    build: BuildTable = BuildTable()
    verify: VerifyTable = VerifyTable()
    browser: BrowserTable = BrowserTable()
    fidelity: FidelityTable = FidelityTable()
    tracking: TrackingTable = TrackingTable()
    cache: CacheTable = CacheTable()
    defaults: DefaultsTable = DefaultsTable()
    models: Mapping[str, ModelTable] = field(default_factory=dict)
    publish: PublishTable | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Variables:
    """The settings on the command line, ``name=value``, that replace a key of the file."""

    deploy: str | None = None
    cache: CacheAddress | None = None
    cluster: Scheduler | None = None
    overwrite: Literal["yes", "no"] = "no"
