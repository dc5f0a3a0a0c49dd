"""The JSON Schema derived from the types of a manifest.

`python tests/manifest_schema.py` writes docs/manifest.schema.json: the structure comes from the
types, and further limits and descriptions from `LIMITS`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docs/manifest.schema.json"

Schema = dict[str, Any]
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}

HASH = {"pattern": "^[0-9a-f]{64}$", "description": "SHA-256 of the content"}
SIZE = {"minimum": 0, "description": "bytes"}
IOU = {"minimum": 0, "maximum": 1, "description": "null: not a finite number"}


def reason_where_not(key: str) -> Schema:
    """An entry has a reason if it is not deployed, or not proven, and only then."""
    return {
        "if": {"properties": {key: {"const": True}}},
        "then": {"properties": {"reason": False}},
        "else": {"required": ["reason"]},
    }


# Additions to the types, by definition and property; an empty property is the whole definition.
LIMITS: dict[tuple[str, str], Schema] = {
    ("Checkpoint", "sha256"): HASH,
    ("Checkpoint", "size"): SIZE,
    ("File", "sha256"): HASH,
    ("File", "size"): SIZE,
    ("File", "needs"): {
        "description": "minimum version of each runtime, feature of webgpu; absent: not a graph"
    },
    ("File", "runs_on"): {
        "description": "versions of each runtime that ran a file of its opset, precision and format"
    },
    ("Ious", "mean"): IOU,
    ("Ious", "worst"): IOU,
    ("VariantEntry", ""): reason_where_not("deployed"),
    ("ProviderProof", ""): reason_where_not("proven"),
    ("ProviderProof", "software"): {"description": "whether the WebGPU adapter is emulated"},
    ("ProviderProof", "nodes"): {
        "description": "number of nodes of each graph on WebGPU and on the CPU"
    },
    ("Manifest", ""): {"oneOf": [{"required": ["encoder"]}, {"required": ["embeddings"]}]},
    ("Manifest", "client"): {"description": "the program for which the files are made"},
    ("Manifest", "client_version"): {"description": "the version that its contract was read from"},
    ("Manifest", "model_type"): {"description": "null: `config` describes the architecture"},
    ("Manifest", "files"): {"description": "every file except this one, by path in the folder"},
    ("Manifest", "encoder"): {"description": "as decoder; absent: the folder has only a decoder"},
    ("Manifest", "decoder"): {"description": "of the first deployed variant"},
    ("Manifest", "variants"): {"description": "all requested variants, also those not deployed"},
    ("Manifest", "recommended"): {"description": "no key: nothing is proven on the provider"},
    ("Manifest", "verification"): {"description": "null: single precision is not deployed"},
    ("Manifest", "browser"): {"description": "of the first variant; null: no browser ran it"},
    ("Manifest", "embeddings"): {"description": "the embeddings that a decoder alone decodes"},
    ("Embeddings", "checkpoint_sha256"): HASH,
    ("StoredEmbedding", "size"): SIZE,
    ("Manifest", "video"): {"description": "absent: no tracking graphs"},
    ("Masks", "pixels_per_cell"): {"description": "null: masks have the size of the image"},
    ("Tensor", "shape"): {"description": "a name where the caller chooses the size"},
    ("Tensor", "role"): {
        "description": "the purpose of the tensor, independent of its name in the client"
    },
}


def schema() -> Schema:
    """The whole schema."""
    from tasks.proof.manifest import Manifest

    definitions: dict[str, Schema] = {}
    of_kind(Manifest, definitions)
    for (name, key), more in LIMITS.items():
        target = definitions[name]["properties"][key] if key else definitions[name]
        target |= more
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "manifest.json of a deployed folder",
        "$ref": "#/$defs/Manifest",
        "$defs": dict(sorted(definitions.items())),
    }


def of_kind(kind: Any, definitions: dict[str, Schema]) -> Schema:
    """The schema of a type; the schema of a dataclass is added to the definitions."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in PLAIN:
        return {"type": PLAIN[kind]}
    if is_dataclass(kind):
        assert isinstance(kind, type)
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}
            definitions[kind.__name__] |= of_dataclass(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if origin is Literal:
        return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
    if origin in (Union, UnionType):
        kinds = [of_kind(each, definitions) for each in arguments]
        if all(each.keys() == {"type"} for each in kinds):
            return {"type": [each["type"] for each in kinds]}
        return {"anyOf": kinds}
    if origin is tuple and arguments[-1] is not Ellipsis:
        items = [of_kind(each, definitions) for each in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
    if origin is tuple:
        return {"type": "array", "items": of_kind(arguments[0], definitions)}
    assert origin is Mapping, kind
    names = of_kind(arguments[0], definitions)
    keys = {} if arguments[0] is str else {"propertyNames": names}
    values = of_kind(arguments[1], definitions)
    return {"type": "object", **keys, "additionalProperties": values}


def of_dataclass(kind: type, definitions: dict[str, Schema]) -> Schema:
    """An object; a field with the default None is absent rather than null."""
    hints = get_type_hints(kind)
    optional = [each.name for each in fields(kind) if each.default is None]  # type: ignore[arg-type]
    properties = {}
    for each in fields(kind):  # type: ignore[arg-type]
        hint = hints[each.name]
        if each.name in optional:
            (hint,) = (some for some in get_args(hint) if some is not NoneType)
        properties[each.name] = of_kind(hint, definitions)
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def text() -> str:
    """The file's content."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    FILE.write_text(text())
