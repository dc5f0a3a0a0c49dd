"""The model card of a published model: made from its manifest, with room for a person's text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.clients.client import named
from tasks.console.sizes import mebibytes
from tasks.inference.checks import Figure
from tasks.proof.judgement import largest_differences
from tasks.proof.recommendation import PROVIDERS
from tasks.proof.runtimes import newest

TEMPLATES = Path("tasks/templates")

# What stands below this line on the hub is a person's, and is kept.
MARK = "<!-- Written by `doit publish` up to this line, and replaced. What is below it is kept. -->"

# Licences that the hub has a name for; of another it wants to be told that it is `other`.
LICENSES = frozenset(
    {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "mpl-2.0", "unlicense", "openrail"}
    | {"agpl-3.0", "gpl-3.0", "lgpl-3.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nd-4.0"}
    | {"cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"}
)

CHOICES = {
    "multi": "there are three for a prompt, of which to take that of the best score",
    "ranked": "there are three for a prompt, the best first",
    "best": "there is one for a prompt, of three that of the best score",
    "single": "there is one for a prompt",
    "all": "there are four for a prompt, of which to take that of the best score",
}


def card(
    manifest: Mapping[str, Any],
    repo: str,
    folder: str,
    endpoint: str,
    revision: str = "main",
    picture: str | None = None,
) -> str:
    """The text of ``README.md``, up to the line behind which a person's own begins.

    :param repo: OWNER/NAME of the repository.
    :param folder: what the client calls the folder of these files.
    :param endpoint: the hub's address.
    :param picture: the file of a picture in the repository.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown
    )
    environment.filters |= {"mebibytes": mebibytes, "cell": cell, "in_browser": in_browser}
    other_branch = revision != "main"
    context = {
        **manifest,
        "repo": repo,
        "folder": folder,
        "picture": picture,
        "side": manifest["encoder"]["inputs"][0]["shape"][2],
        "graphs": {graph: manifest[graph] for graph in ("encoder", "decoder")},
        "choices": CHOICES,
        "providers": PROVIDERS,
        "smaller": any(each.get("fidelity") for each in manifest["variants"]),
        "sizes": {
            each["name"]: sum(manifest["files"][file]["size"] for file in each["files"].values())
            for each in manifest["variants"]
            if each["deployed"]
        },
        "needs": {
            each["name"]: newest(
                manifest["files"][file]["needs"]["onnxruntime"] for file in each["files"].values()
            )
            for each in manifest["variants"]
            if each["deployed"]
        },
        "largest": _largest(manifest["verification"]),
        "download": f"hf download {repo}{f' --revision {revision}' * other_branch}",
        "options": f', {{ revision: "{revision}" }}' * other_branch,
        "address": f"{endpoint}/{repo}/resolve/{revision}",
    }
    usage = environment.get_template(f"clients/{manifest['client']}.md").render(context)
    text = environment.get_template("card.md").render(
        context, metadata=metadata(manifest), usage=usage
    )
    return f"{text.rstrip()}\n\n{MARK}\n"


def with_own_text(generated: str, earlier: str | None) -> str:
    """A new card, with what a person wrote below the line of the one before."""
    return generated + kept_text(earlier or "")


def generated_text(text: str) -> str:
    """What of a card was made; empty where there is no line."""
    made, line, _ = text.partition(MARK)
    return made if line else ""


def kept_text(earlier: str) -> str:
    """What a person wrote below the line; empty where there is no line."""
    return earlier.partition(MARK)[2].removeprefix("\n")


def metadata(manifest: Mapping[str, Any]) -> str:
    """The YAML at the head of the card, by which the hub finds and shows the model."""
    from huggingface_hub import ModelCardData

    license, license_name = license_of(manifest["license"])
    return ModelCardData(
        license=license,
        license_name=license_name,
        library_name=named(manifest["client"]).library,
        pipeline_tag="mask-generation",
        tags=["sam2", "segment-anything", "onnx", "onnxruntime", "onnxruntime-web"],
        base_model=base_model(manifest["checkpoint"]["url"]),
    ).to_yaml()


def license_of(name: str) -> tuple[str, str | None]:
    """A licence as the hub names it; one that it does not know is ``other``, and has a name."""
    known = name.lower()
    if known in LICENSES:
        return known, None
    return "other", re.sub(r"[^a-z0-9.]+", "-", known).strip("-") or "other"


def base_model(url: str) -> str | None:
    """The repository of the hub that a checkpoint came from; None of any other source."""
    found = re.match(r"hf:([^/@]+/[^/@]+)", url)
    return found[1] if found else None


def cell(text: object) -> str:
    """A text in a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", r"\|").replace("<", "&lt;")


def in_browser(variant: Mapping[str, Any], provider: str) -> str:
    """What a browser's provider did with a variant, in words."""
    proof = (variant.get("browser") or {}).get("providers", {}).get(provider)
    if proof is None:
        return "not run"
    if not proof["proven"]:
        return cell(f"not proven: {proof['reason']}")
    parts = proof.get("parts", [])
    what = "proven" if "encoder" in parts else "decoder proven"
    return f"{what}, in software" if proof.get("software") else what


def _largest(verification: Mapping[str, Any] | None) -> dict[str, Figure] | None:
    if verification is None:
        return None
    return largest_differences(
        {"features": verification["encoder"], "prompts": verification["prompts"]}
    )
