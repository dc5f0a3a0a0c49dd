"""The model card of a published model, made from its manifest, with room for the user's text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tasks.clients.registry import library_of
from tasks.console.sizes import mebibytes
from tasks.inference.checks import Figure
from tasks.model.families.family import Family
from tasks.model.families.registry import family_of
from tasks.proof.failures import PROVIDERS
from tasks.proof.judgement import largest_differences
from tasks.proof.runtimes import newest

if TYPE_CHECKING:
    from jinja2 import Environment

    from tasks.proof.manifest import Manifest, VariantEntry, Verification

TEMPLATES = Path("tasks/templates")

# Text below this line on the hub is the user's, and is kept.
MARK = "<!-- Written by `doit publish` up to this line, and replaced. What is below it is kept. -->"

# Licences that the hub has a name for; the hub's name for any other is `other`.
LICENSES = frozenset(
    {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "mpl-2.0", "unlicense", "openrail"}
    | {"agpl-3.0", "gpl-3.0", "lgpl-3.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nd-4.0"}
    | {"cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"}
)

CHOICES = {
    "multi": "Each prompt gives three; take the one with the best score",
    "ranked": "Each prompt gives three, the best first",
    "best": "Each prompt gives one, the best-scored of three",
    "single": "Each prompt gives one",
    "all": "Each prompt gives four; take the one with the best score",
}


def environment(**filters: Callable[..., object]) -> Environment:
    """The project's templates; HTML is escaped, and an undefined name is an error."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: bool(name and name.endswith(".html")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"mebibytes": mebibytes, **filters}
    return templates


def card(
    manifest: Manifest,
    repo: str,
    folder: str,
    endpoint: str,
    revision: str = "main",
    picture: str | None = None,
) -> str:
    """The text of ``README.md``, up to the line below which the user's own text begins.

    :param repo: OWNER/NAME of the repository.
    :param folder: the client's name for the folder of these files.
    :param endpoint: the hub's address.
    :param picture: the file of a picture in the repository.
    """
    templates = environment(cell=cell, in_browser=in_browser)
    other_branch = revision != "main"
    context = {
        **vars(manifest),
        "family": family_of_manifest(manifest),
        "size_of": manifest.size_of,
        "side": manifest.side,
        "repo": repo,
        "folder": folder,
        "picture": picture,
        "graphs": manifest.image_graphs,
        "choices": CHOICES,
        "providers": PROVIDERS,
        "smaller": any(each.fidelity for each in manifest.variants),
        "needs": {each.name: _needs(manifest, each) for each in manifest.deployed},
        "tried": {each.name: _tried(manifest, each) for each in manifest.deployed},
        "largest": _largest(manifest.verification),
        "download": f"hf download {repo}{f' --revision {revision}' * other_branch}",
        "options": f', {{ revision: "{revision}" }}' * other_branch,
        "address": f"{endpoint}/{repo}/resolve/{revision}",
    }
    layout = ".sam" if context["family"].layout == "sam" else ""
    usage = templates.get_template(f"clients/{manifest.client}{layout}.md").render(context)
    text = templates.get_template("card.md").render(
        context, metadata=metadata(manifest), usage=usage
    )
    return f"{text.rstrip()}\n\n{MARK}\n"


def generated_text(text: str) -> str:
    """The text above the line; empty if there is no line."""
    made, line, _ = text.partition(MARK)
    return made if line else ""


def kept_text(earlier: str) -> str:
    """The user's text below the line; empty if there is no line."""
    return earlier.partition(MARK)[2].removeprefix("\n")


def family_of_manifest(manifest: Manifest) -> Family:
    """The family of a manifest's model."""
    return family_of(manifest.model_type or "")


def metadata(manifest: Manifest) -> str:
    """The YAML at the head of the card, which the hub uses to find and show the model."""
    from huggingface_hub import ModelCardData

    license, license_name = license_of(manifest.license or "")
    return ModelCardData(
        license=license,
        license_name=license_name,
        library_name=library_of(manifest.client),
        pipeline_tag="mask-generation",
        tags=[
            "sam" if family_of_manifest(manifest).layout == "sam" else "sam2",
            "segment-anything",
            "onnx",
            "onnxruntime",
            "onnxruntime-web",
        ],
        base_model=base_model(manifest.checkpoint.url),
    ).to_yaml()


def license_of(name: str) -> tuple[str, str | None]:
    """The hub's name of a licence, or ``other`` and the licence's own name if it has none."""
    name = name.lower()
    if name in LICENSES:
        return name, None
    return "other", re.sub(r"[^a-z0-9.]+", "-", name).strip("-") or "other"


def base_model(url: str) -> str | None:
    """The repository of the hub that a checkpoint came from; None for other sources."""
    match = re.match(r"hf:([^/@]+/[^/@]+)", url)
    return match[1] if match else None


def cell(text: object) -> str:
    """A text in a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", r"\|").replace("<", "&lt;")


def in_browser(variant: VariantEntry, provider: Literal["wasm", "webgpu"]) -> str:
    """The outcome of a variant on a provider in the browser."""
    proof = variant.browser.providers.get(provider) if variant.browser else None
    if proof is None:
        return "not run"
    if not proof.proven:
        return cell(f"not proven: {proof.reason}")
    what = "proven" if "encoder" in (proof.parts or ()) else "decoder proven"
    return f"{what}, in software" if proof.software else what


def _needs(manifest: Manifest, variant: VariantEntry) -> str:
    """The oldest onnxruntime that runs all files of a variant."""
    needs = [manifest.files[file].needs or {} for file in variant.files.values()]
    return newest(each["onnxruntime"] for each in needs)


def _tried(manifest: Manifest, variant: VariantEntry) -> str:
    """The runtimes that ran files of each kind that a variant has, with their versions."""
    of_files = [manifest.files[file].runs_on or {} for file in variant.files.values()]
    tried = []
    for runtime, versions in of_files[0].items():
        in_all = [v for v in versions if all(v in each.get(runtime, ()) for each in of_files)]
        tried += [f"{runtime} {', '.join(in_all)}"] if in_all else []
    return "; ".join(tried)


def _largest(verification: Verification | None) -> dict[str, Figure] | None:
    """The largest difference of each kind over all prompts; None if nothing was compared."""
    if verification is None:
        return None
    prompts = {name: vars(each) for name, each in verification.prompts.items()}
    return largest_differences({"features": verification.encoder, "prompts": prompts})
