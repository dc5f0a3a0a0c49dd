"""The tables of `config/models.toml`: each key with its type, default, range and meaning.

The tables in `docs/configuration.md` repeat the defaults and meanings; a test compares them.
"""

# Without `from __future__ import annotations`: cattrs ignores the rules of annotations in strings.
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tasks.clients.contract import MaskChoice, PromptChoice
from tasks.config.checks import Checks
from tasks.config.location import CheckpointLocation
from tasks.config.models import DEFAULT_OPSET, Source, Target
from tasks.config.rules import (
    DEFAULT_CLIENT,
    Branch,
    CacheAddress,
    ClientName,
    ClientNames,
    Folder,
    Formats,
    Function,
    Graphs,
    ImageSize,
    ModelType,
    OnOffAuto,
    Opset,
    Patterns,
    Precisions,
    Repository,
    Scheduler,
    Sha256,
    Share,
    Size,
    Text,
)
from tasks.model import AttentionKind
from tasks.model.published import AUTO

MAKE_KEY = "`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem` makes one"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BuildTable:
    dir: Annotated[Text, "downloads, intermediate graphs, reports, logs, records"] = "build"
    deploy: Annotated[Text, "models go to `<deploy>/<folder>/`; `doit deploy=DIR` replaces it"] = (
        "public/onnx-models/sam"
    )
    cluster: Annotated[
        Scheduler, "the workers' Dask scheduler ([scale.md](scale.md)), `tcp://HOST:PORT`"
    ] = "off"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CacheTable:
    url: Annotated[
        CacheAddress | None,
        "the address; `doit cache=ADDRESS` replaces it, `doit cache=off` builds without a cache",
    ] = None
    write: Annotated[bool, "store the results of this build in the cache"] = True
    proofs: Annotated[bool, "take the proofs of others instead of running them here; see below"] = (
        False
    )
    options: Annotated[
        Mapping[str, Any] | None,
        'options of fsspec\'s file system, such as `{ endpoint_url = "https://…" }`',
    ] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DefaultsTable:
    client: Annotated[
        ClientName | None, f'the program that loads the files; default: `"{DEFAULT_CLIENT}"`'
    ] = None
    clients: Annotated[ClientNames | None, "a list of clients, instead of `client`"] = None
    variants: Annotated[Precisions, "any of `fp32`, `fp16`, `q8`, `q4`, `q4f16`, `half`"] = (
        "fp32",
    )
    formats: Annotated[
        Formats | None, "`onnx`, `ort` or both, where the client loads them; default: the client's"
    ] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Publishing:
    """Where deployed models are published (``[publish]``).

    A missing repository is created.
    """

    repo: Annotated[
        Repository | None, "OWNER/NAME on the Hugging Face hub, with `{folder}` or `{model}` in it"
    ]
    revision: Annotated[Branch, "a branch of the repository"] = "main"
    private: Annotated[bool, "new repositories are private"] = False

    def repository(self, target: Target) -> str:
        """The OWNER/NAME that a model goes to."""
        repo = self.repo or ""  # None is a mistake, and refused
        return repo.replace("{folder}", target.deploy.name).replace("{model}", target.name)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Signing:
    """The key that signs deployed folders (``[sign]``)."""

    key: Annotated[Text | None, "a private key in PEM, on the curve P-256, P-384 or P-521"]

    @property
    def private_key(self) -> Path:
        """The file of the key."""
        return Path(self.key or "").expanduser()  # None is a mistake, and refused


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ModelTable:
    """A ``[models.<name>]``."""

    model_type: Annotated[
        ModelType, 'an architecture by name; `"auto"`: the one that fits the weights'
    ] = AUTO
    config: Annotated[Text | None, "a YAML file of an architecture, instead of `model_type`"] = None
    url: Annotated[CheckpointLocation | None, "the checkpoint, see below"]
    sha256: Annotated[
        Sha256 | None, "the checkpoint's hash; without it, the build warns and prints the hash"
    ] = None
    size: Annotated[Size | None, "the checkpoint's size in bytes"] = None
    client: Annotated[ClientName | None, "the program that loads the files"] = None
    clients: Annotated[ClientNames | None, "a list of clients; default: those of `[defaults]`"] = (
        None
    )
    graphs: Annotated[
        Graphs | None, "the graphs to build: those that the client loads, which are the default"
    ] = None
    folder: Annotated[
        Folder | None, "the folder in the deploy folder; default: the `model_type`, or the name"
    ] = None
    deploy: Annotated[Text | None, "the deploy folder; default: that of `[build]`"] = None
    default: Annotated[bool, "a bare `doit` builds this model"] = True
    image_size: Annotated[
        ImageSize | None, "height and width of the input in pixels; default: the architecture's"
    ] = None
    video: Annotated[bool, "builds tracking graphs too, see [video.md](video.md)"] = False
    opset: Annotated[Opset, "the ONNX opset, 17 to 20"] = DEFAULT_OPSET
    masks: Annotated[
        MaskChoice | None, "the masks that the decoder returns, see below; default: the client's"
    ] = None
    prompts: Annotated[
        PromptChoice | None, '`"one"` or `"many"` prompts in a run; default: the client\'s'
    ] = None
    attention: Annotated[AttentionKind, "how the encoder's attention is written"] = "plain"
    browser: Annotated[OnOffAuto | None, "replaces `[browser] enabled` for this model"] = None
    webgpu: Annotated[bool | None, "replaces `[browser] webgpu` for this model"] = None
    variants: Annotated[Precisions | None, "the precisions; default: those of `[defaults]`"] = None
    formats: Annotated[Formats | None, "the file formats; default: those of `[defaults]`"] = None
    truth: Annotated[
        Function | None, "`module:function` that draws images with known masks, see below"
    ] = None
    truth_data: Annotated[Patterns, 'the files that `truth` reads, such as `["masks/*.tif"]`'] = ()
    truth_iou: Annotated[Share, "the minimum mean IoU with the known masks, from one click"] = (
        Source.truth_iou
    )
    license: Annotated[
        Text | None, "the licence of the weights, for the manifest; needed to [publish](publish.md)"
    ] = None
    origin: Annotated[Text | None, "where the weights are from, for the manifest"] = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tables(Checks):
    """A whole configuration file."""

    build: BuildTable = BuildTable()
    cache: CacheTable = CacheTable()
    defaults: DefaultsTable = DefaultsTable()
    models: Mapping[str, ModelTable] = field(default_factory=dict)
    publish: Publishing | None = None
    sign: Signing | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Variables:
    """The ``name=value`` settings of the command line that replace a key of the file."""

    deploy: str | None = None
    cache: CacheAddress | None = None
    cluster: Scheduler | None = None
    overwrite: Literal["yes", "no"] = "no"
