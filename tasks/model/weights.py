"""Reads the weights of a checkpoint from any program, and gives them the names of the model's own
code: sam2's, or segment-anything's for SAM 1.

The format is detected from the content, never from the file's name. Only tensors are read: no code
in a file is ever run.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tasks.model import other_families, transformers_names
from tasks.system.errors import StageError

Weights = dict[str, torch.Tensor]

EXPECTED = (
    "expected SAM 2's weights or SAM 1's: a torch file with a state dict, bare or under keys such "
    "as model or state_dict, or a safetensors file"
)
_SAVE_AGAIN = "torch.save({'model': model.state_dict()}, ...)"
_DEPTH = 4  # levels of nested tables to search; a table in a file can contain itself

# The parts of a model, as named in its own code or in transformers.
_ENCODERS = ("image_encoder.", "vision_encoder.")
_DECODERS = ("sam_mask_decoder.", "mask_decoder.")
_ROOTS = re.compile(r"\b(?:image_encoder|vision_encoder|sam_mask_decoder|mask_decoder)\.")
# Compilation, parallel training and checkpointed activations insert these into names.
_WRAPPERS = re.compile(r"\b(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# A running average of a model's weights, beside them.
_AVERAGE = re.compile(r"(?:^|[^a-z])(?:ema|swa|averaged?)(?:[^a-z]|$)", re.IGNORECASE)
_ADAPTER = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer)\.")

# The key of the weights that micro-sam 1.8 writes beside a model (in
# ``micro_sam/training/joint_sam_trainer.py`` and ``export_custom_sam_model`` in
# ``micro_sam/util.py``, 3acdcd7).
_AUTOMATIC = "decoder_state."

# Parts of torch's messages when it refuses to load a file, and their meanings. The rest of such a
# message explains how to switch the protection off.
_REFUSALS = (
    (
        re.compile(r"GLOBAL (ultralytics\.\S+)"),
        "it is a YOLO model, as FastSAM's are, and names {}",
    ),
    (
        re.compile(r"GLOBAL ((?:micro_sam|torch_em)\.\S+)"),
        "it names {}, as files of micro-sam's trainer do; to export only their weights, use "
        "micro_sam.util.export_custom_sam_model",
    ),
    (re.compile(r"GLOBAL (\S+)"), "it names {}"),
    (re.compile(r"but got (<class '[^']+'>)"), "it builds a {}"),
    (re.compile(r"TorchScript"), "it is a TorchScript archive, which is a program"),
    (re.compile(r"DTensors"), "its tensors are sharded (DTensor)"),
    (re.compile(r"Unsupported operand (\d+)"), "its pickle has the instruction {}"),
)
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f-\x9f]")

# The first bytes of other kinds of files.
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer; `git lfs pull` fetches what it points to"),
    (b"<", "a page of HTML or XML; the address must lead to the file itself"),
    (b"{", "JSON"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x89HDF", "HDF5"),
)


class _Ignored:
    """Stands in for numpy's scalars: they are not read, and no code of numpy runs."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# Trainers store losses and scores as numpy's scalars beside the weights.
_NUMPY_SCALARS = (
    "numpy.dtype",
    "numpy.core.multiarray.scalar",  # before numpy 2
    "numpy._core.multiarray.scalar",
)


@dataclass(frozen=True)
class Choice:
    """The weights of one model in a file.

    :param prefix: the keys that lead to the weights, and the common start of their names, such as
        ``state_dict.model.``.
    :param others: the prefixes of other models' weights in the same file.
    """

    weights: Weights
    prefix: str
    others: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """Sentences about the choice; None if the file has no other weights."""
        if not self.others:
            return None
        advice = "To use others, save only those as {'model': ...}."
        if self.others == (_AUTOMATIC,):
            advice = "Those are micro-sam's for automatic segmentation, which is not exported."
        return (
            f"took the weights under {_quoted([self.prefix])}, and left out those under "
            f"{_quoted(self.others)}. {advice}"
        )


def read(checkpoint: str | Path) -> Weights:
    """A checkpoint's state dict, with its own code's names; raises as `choose`."""
    return choose(checkpoint).weights


def choose(checkpoint: str | Path) -> Choice:
    """A checkpoint's state dict, with its own code's names, and the prefixes of other weights.

    :raises StageError: when the file has no usable weights, or weights of several models; the
        message says what the file has.
    """
    path = Path(checkpoint)
    with path.open("rb") as file:
        start = file.read(64)
    if start[5:9] == b"\0\0\0{":  # the end of the header's length, then its JSON
        content: Any = _read_safetensors(path)
    elif start.startswith((b"PK\x03\x04", b"\x80")):
        content = _read_torch(path)
    else:
        other = next((what for magic, what in _OTHERS if start.lstrip().startswith(magic)), None)
        raise StageError(
            f"{path} is not a checkpoint: it is "
            f"{other or f'a file that begins with {start[:8]!r}'}; {EXPECTED}"
        )
    choice = model_in(path, content)
    return replace(choice, weights=with_own_names(path, choice.weights))


def _read_safetensors(path: Path) -> Weights:
    """All tensors, mapped into memory, so they are read on use."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise StageError(
            f"{path} is a damaged safetensors file: {error}. It may be cut off: fetch or copy it "
            "again, then run the same command."
        ) from error


def _read_torch(path: Path) -> Any:
    """The content of a torch file: tensors, numbers, strings, and dicts and lists of them."""
    ignored: list[Any] = [(_Ignored, name) for name in _NUMPY_SCALARS]
    mapped = zipfile.is_zipfile(path)  # weights are read once, when they are copied
    try:
        with torch.serialization.safe_globals(ignored):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch can raise anything at a damaged file
        meaning = _meaning(str(error))
        if isinstance(error, pickle.UnpicklingError) or meaning:
            raise StageError(
                f"{path} holds more than tensors, and loading that could run code: "
                f"{meaning or 'torch refuses it'} ({EXPECTED}). Save it again with "
                f"{_SAVE_AGAIN}."
            ) from error
        reason = plain(str(error).splitlines()[0]) if str(error) else type(error).__name__
        raise StageError(
            f"{path} cannot be read: {reason} ({EXPECTED}). "
            "It may be cut off: fetch or copy it again, then run the same command."
        ) from error


def _meaning(message: str) -> str | None:
    """Why torch refused a file, from its message; None for other errors."""
    for pattern, meaning in _REFUSALS:
        if match := pattern.search(message):
            return meaning.format(*map(plain, match.groups()))
    return None


def model_in(path: Path, content: Any) -> Choice:
    """The one model whose weights a file holds; pure.

    The weights of a model are in one table, and their names have the same prefix: the text before
    ``image_encoder.`` in one of them. A running average beside them is left out.

    :param content: tensors by name, or tables of them.
    :raises StageError: when there is no model, more than one, an adapter, or a model of an
        unsupported family.
    """
    tables = list(_tables(content))
    if not tables:
        raise StageError(f"{path} has no state dict: found {_contents(content)}; {EXPECTED}")
    family = other_families.family_of(name for _, tensors in tables for name in tensors)
    if family is not None:
        raise StageError(
            f"{path} holds weights of {family}, which this build does not support; expected "
            f"weights of {other_families.SUPPORTED}, or of an architecture of sam2's classes."
        )
    if any(_ADAPTER.search(name) for _, tensors in tables for name in tensors):
        raise StageError(
            f"{path} holds a LoRA adapter, not a merged model. Merge it with PEFT's "
            "merge_and_unload(), and save the model."
        )
    parts = _by_prefix(tables)
    if not parts:  # another kind of model; the caller refuses it by its shapes
        above, tensors = max(tables, key=lambda table: len(table[1]))
        return Choice(tensors, above)
    models = [prefix for prefix, weights in parts.items() if _is_whole(weights)]
    if len(models) > 1:
        models = [prefix for prefix in models if not _AVERAGE.search(prefix)] or models
    if len(models) > 1:
        raise StageError(
            f"{path} holds {len(models)} models, with weights under {_quoted(models)}; expected "
            f"one model. Save only the one to export: {_SAVE_AGAIN}."
        )
    chosen = models[0] if models else min(parts, key=len)
    others = [each for each in parts if each != chosen]
    others += [above for above, _ in tables if above == _AUTOMATIC and above not in parts]
    return Choice(parts[chosen], chosen, tuple(others))


def _tables(content: Any, above: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Weights]]:
    """Each table of tensors by name, with the keys that lead to it."""
    if not isinstance(content, dict) or not depth:
        return
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if tensors:
        yield above, tensors
    for key, value in content.items():
        yield from _tables(value, f"{above}{key}.", depth - 1)


def _by_prefix(tables: Iterable[tuple[str, Weights]]) -> dict[str, Weights]:
    """The weights of all tables that hold a part of a model, by the prefix of their names."""
    parts: dict[str, Weights] = {}
    for above, tensors in tables:
        roots = {name[: match.start()] for name in tensors if (match := _ROOTS.search(name))}
        for name, tensor in tensors.items():
            prefixes = [prefix for prefix in roots if name.startswith(prefix)]
            if prefixes:
                prefix = max(prefixes, key=len)
                parts.setdefault(above + prefix, {})[name.removeprefix(prefix)] = tensor
    return parts


def _is_whole(weights: Weights) -> bool:
    """Whether weights have both an encoder and a decoder."""
    return all(any(name.startswith(part) for name in weights) for part in (_ENCODERS, _DECODERS))


def _contents(content: Any) -> str:
    """A file's content, for people."""
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    if not content:
        return "an empty table"
    empty = {key for key, value in content.items() if isinstance(value, dict) and not value}
    return "keys " + some(f"{key} (empty)" if key in empty else str(key) for key in content)


def _quoted(prefixes: Iterable[str]) -> str:
    """Prefixes, for people."""
    return " and ".join(f"`{plain(each)}`" if each else "no prefix" for each in prefixes)


def with_own_names(path: Path, weights: Mapping[str, torch.Tensor]) -> Weights:
    """Weights with sam2's or segment-anything's names, without the names of wrappers.

    :raises StageError: when two weights of transformers that must be equal differ, or when the
        weights belong to two families.
    """
    weights = {_WRAPPERS.sub("", name): tensor for name, tensor in weights.items()}
    if transformers_names.are_of_transformers(weights):
        weights = _renamed(path, weights)
    examples = other_families.examples_of_families(weights)
    if len(examples) > 1:
        both = " and ".join(f"{family} ({plain(name)}, …)" for family, name in examples.items())
        raise StageError(
            f"{path} holds weights of {both} under the same prefix; expected one model. "
            f"Save only the one to export: {_SAVE_AGAIN}."
        )
    return dict(weights)


def _renamed(path: Path, weights: Mapping[str, torch.Tensor]) -> Weights:
    """transformers' weights with the names of the model's own code; raises as `with_own_names`."""
    names = transformers_names.GAUSSIAN
    embeddings = [weights[name].double() for name in names if name in weights]
    if len(embeddings) == 2 and not torch.equal(*embeddings):
        raise StageError(
            f"{path} has two positional embeddings that differ: {' and '.join(names)}; expected "
            "equal ones, as in models trained from Meta's weights. The model's own code has one "
            "embedding for both image and prompts, so a graph would not answer like this model. "
            "Make the two equal, and train the model further."
        )
    renamed: Weights = {}
    joined: dict[str, list[str]] = {}
    for name, parts in transformers_names.to_own(weights).items():
        if len(parts) == 1:
            joined.setdefault(parts[0], []).append(name)
        else:
            renamed |= dict(zip(parts, torch.split(weights[name], 1), strict=False))
    for whole, several in joined.items():
        pieces = [weights[name] for name in sorted(several)]
        renamed[whole] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return renamed


def some(names: Iterable[str], limit: int = 4) -> str:
    """The first few of several names, and the number of the rest."""
    names = list(names)
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(plain, names[:limit])) + more


def plain(text: str, limit: int = 200) -> str:
    """A text from a file, shortened and without terminal control codes."""
    text = _UNPRINTABLE.sub("", text)
    return text if len(text) <= limit else f"{text[:limit]}…"
