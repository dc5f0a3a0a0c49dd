"""The configuration: what it accepts, and error messages that name the allowed values."""

from __future__ import annotations

import json
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from project import ROOT

from tasks.config.location import WEIGHTS, CheckpointLocation
from tasks.config.parse import cache_of, load, parse
from tasks.config.schema import Configuration, ConfigurationError
from tasks.config.tables import ModelTable, Publishing, Signing, Tables


def configuration(text: str, **keys: Any) -> Configuration:
    return parse(tomllib.loads(text), Path("models.toml"), **keys)


def mistakes(text: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        configuration(text)
    return str(error.value)


TABLES = {key.name: key.type for key in fields(Tables)}
TABLES |= {"models": ModelTable, "publish": Publishing, "sign": Signing}

TINY = '[models.tiny]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n'


def test_the_project_configuration_has_sixteen_models_four_of_them_default() -> None:
    config = load(ROOT / "config/models.toml")
    assert [each.name for each in config.targets if each.default] == [
        "tiny",
        "small",
        "base_plus",
        "large",
    ]
    assert [each.name for each in config.targets if not each.default] == [
        "tiny-2.1",
        "small-2.1",
        "base_plus-2.1",
        "large-2.1",
        "edgetam",
        "efficienttam_s",
        "vit_b",
        "vit_b_lm",
        "vit_t_lm",
        "mobile_sam",
        "demo",
        "demo-transformers.js",
        "demo-video",
    ]
    unsigned = [each.name for each in config.sources if not each.sha256]
    # No source other than the file's own address gives their hashes.
    assert unsigned == ["edgetam", "efficienttam_s", "vit_b_lm", "vit_t_lm"]


def test_the_deploy_folder_is_named_after_the_architecture_by_default() -> None:
    assert str(configuration(TINY).targets[0].deploy) == "public/onnx-models/sam/sam2_hiera_tiny"
    named = configuration(TINY + 'folder = "mine"\n')
    assert str(named.targets[0].deploy) == "public/onnx-models/sam/mine"


def test_deploy_on_the_command_line_overrides_build_deploy_but_not_a_models_deploy() -> None:
    text = TINY + '[models.demo]\nmodel_type = "sam2_hiera_tiny"\nurl = "x.pt"\ndeploy = "demo"\n'
    tiny, demo = configuration(text, deploy="app").targets
    assert str(tiny.deploy) == "app/sam2_hiera_tiny"
    assert str(demo.deploy) == "demo/sam2_hiera_tiny"


def test_the_command_line_replaces_or_switches_off_the_configured_cluster() -> None:
    text = f'[build]\ncluster = "tcp://scheduler:8786"\n{TINY}'
    assert configuration(TINY).cluster is None
    assert configuration(text).cluster == "tcp://scheduler:8786"
    assert configuration(text, cluster="tls://[::1]:80").cluster == "tls://[::1]:80"
    assert configuration(text, cluster="off").cluster is None


@pytest.mark.parametrize("address", ["", "scheduler:8786", "tcp://scheduler", "http://host:80"])
def test_an_invalid_scheduler_address_is_refused(address: str) -> None:
    allowed = "allowed: tcp://HOST:PORT or tls://HOST:PORT, of a Dask scheduler, or off"
    text = f'[build]\ncluster = "{address}"\n{TINY}'
    assert f"[build] cluster: found {address!r}; {allowed}" in mistakes(text)
    with pytest.raises(ConfigurationError, match="on the command line cluster: found"):
        configuration(TINY, cluster=address)


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://host/a.pt", CheckpointLocation("http", "https://host/a.pt")),
        ("http://host:80/a.pt", CheckpointLocation("http", "http://host:80/a.pt")),
        (
            "file:///data/my%20model.pt",
            CheckpointLocation("file", "file:///data/my%20model.pt", Path("/data/my model.pt")),
        ),
        ("weights/a.pt", CheckpointLocation("file", "weights/a.pt", Path("weights/a.pt"))),
        ("~/w/a.pt", CheckpointLocation("file", "~/w/a.pt", Path("/home/me/w/a.pt"))),
        ("file:~/w/a.pt", CheckpointLocation("file", "file:~/w/a.pt", Path("/home/me/w/a.pt"))),
        ("synthetic:", CheckpointLocation("synthetic", "synthetic:", seed=0)),
        ("synthetic:?seed=7", CheckpointLocation("synthetic", "synthetic:?seed=7", seed=7)),
    ],
)
def test_every_kind_of_checkpoint_url_is_parsed(
    url: str, source: CheckpointLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    text = f'[models.x]\nmodel_type = "sam2_hiera_tiny"\nurl = "{url}"\n'
    assert configuration(text).sources[0].location == source


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('url = "ftp://host/a.pt"', "[models.x] url: found 'ftp://host/a.pt'; allowed: an https:"),
        ('url = "~nobody-of-this-name/a.pt"', "allowed: a path from an existing home folder"),
        ('url = "synthetic:?seed=a"', "[models.x] url: found 'synthetic:?seed=a'"),
        ('url = "synthetic:?sed=1"', "[models.x] url: found 'synthetic:?sed=1'"),
        ('sha256 = "12"', "[models.x] sha256: found '12'; allowed: 64 hexadecimal digits"),
        ("size = 0", "[models.x] size: found 0; allowed: a whole number of bytes above 0"),
        ("size = true", "[models.x] size: found True"),
        (
            'model_type = "sam3"',
            "[models.x] model_type: found 'sam3'; allowed: auto, sam2_hiera_tiny, ",
        ),
        ("opset = 16", "[models.x] opset: found 16; allowed: 17 (LayerNormalization needs it)"),
        (
            'masks = "all"',
            "[models.x] masks: found 'all'; allowed: multi, ranked, best, single for client "
            "samexporter",
        ),
        ('attention = "flash"', "[models.x] attention: found 'flash'; allowed: plain, fused"),
        ("image_size = 500", "[models.x] image_size: found 500; allowed: a multiple of 32"),
        ('default = "no"', "[models.x] default: found 'no'; allowed: true or false"),
        ('folder = "../up"', "[models.x] folder: found '../up'; allowed: letters, digits"),
        ('folder = "/abs"', "[models.x] folder: found '/abs'"),
        ('folder = ".."', "[models.x] folder: found '..'"),
        ('truth = "scenes.py"', "[models.x] truth: found 'scenes.py'; allowed: module:function"),
        ('sha265 = "12"', "[models.x] sha265: unknown (did you mean sha256?); allowed: "),
    ],
)
def test_a_mistake_is_reported_with_its_table_key_value_and_the_allowed_values(
    line: str, complaint: str
) -> None:
    keys = {"model_type": '"sam2_hiera_tiny"', "url": '"synthetic:"'}
    key, _, value = line.partition(" = ")
    text = "[models.x]\n" + "".join(f"{k} = {v}\n" for k, v in {**keys, key: value}.items())
    assert complaint in mistakes(text)


def test_all_mistakes_are_reported_at_once_with_the_file_name() -> None:
    message = mistakes(
        '[build]\ndirr = "x"\n[verify]\nmask_tolerance = -1\n[models.x]\nurl = 3\nopset = 3\n'
    )
    assert message.startswith("models.toml has mistakes:")
    for part in (
        "[build] dirr",
        "[verify] mask_tolerance",
        "[models.x] url",
        "[models.x] opset: found 3",
    ):
        assert part in message


def test_a_mistake_in_one_key_does_not_hide_conflicts_between_keys() -> None:
    message = mistakes(
        '[models.x]\nurl = "ftp://host/a.pt"\nmodel_type = "sam2_hiera_tiny"\nconfig = "a.yaml"\n'
        'opset = 3\nattention = "fused"\nclient = "osam"\nmasks = "best"\n'
        "[models.y]\n[models.z]\nurl = 3\n"
    )
    assert [line.split(":")[0].strip() for line in message.splitlines()[1:]] == [
        "[models.x] url",
        "[models.x] opset",
        "[models.y] url",
        "[models.z] url",
        "[models.x] model_type",
        "[models.x] attention",
        "[models.x] masks",
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[verify]\nmask_tolerance = true\n", "[verify] mask_tolerance: found True"),
        ('[verify]\nmask_tolerance = "1"\n', "[verify] mask_tolerance: found '1'"),
        ("[fidelity]\nimages = 8.0\n", "[fidelity] images: found 8.0"),
        ('[fidelity]\nimages = "8"\n', "[fidelity] images: found '8'"),
        ("[build]\ndir = 3\n", "[build] dir: found 3"),
        ('[defaults]\nvariants = "fp32"\n', "[defaults] variants: found 'fp32'"),
        ("[defaults]\nclients = [3]\n", "[defaults] clients: found [3]"),
        ("[publish]\nrepo = 'a/{folder}'\nprivate = 1\n", "[publish] private: found 1"),
    ],
)
def test_no_value_is_converted_to_another_type(text: str, key: str) -> None:
    assert f"{key}; allowed: " in mistakes(text + TINY)


@pytest.mark.parametrize("name", ["../x", "a/b", "a:b", "*", ".hidden"])
def test_an_unsafe_model_name_is_refused(name: str) -> None:
    text = f'[models."{name}"]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n'
    assert f"name: found '{name}'" in mistakes(text)


def test_two_models_in_one_folder_are_refused() -> None:
    message = mistakes(TINY + TINY.replace("tiny]", "other]"))
    assert "[models.other] folder: found public/onnx-models/sam/sam2_hiera_tiny" in message
    assert "where [models.tiny] deploys" in message


def test_model_type_and_config_together_are_refused() -> None:
    lines = 'model_type = "sam2_hiera_tiny"\nconfig = "my.yaml"\n'
    message = mistakes(f'[models.x]\nurl = "x.pt"\n{lines}')
    assert (
        "[models.x] model_type: found 'sam2_hiera_tiny'; allowed: model_type or config" in message
    )
    assert "not both" in message


@pytest.mark.parametrize("lines", ["", 'model_type = "auto"\n'])
def test_without_model_type_or_config_the_weights_determine_the_architecture(lines: str) -> None:
    (model,) = configuration(f'[models.mine]\nurl = "x.pt"\n{lines}').targets
    assert (model.source.architecture, str(model.deploy)) == ("auto", "public/onnx-models/sam/mine")


def test_synthetic_weights_require_an_architecture() -> None:
    message = mistakes('[models.x]\nurl = "synthetic:"\n')
    assert "[models.x] model_type: missing; allowed: an architecture" in message


@pytest.mark.parametrize(
    ("url", "repo", "revision", "file"),
    [
        ("hf:facebook/sam2.1-hiera-tiny", "facebook/sam2.1-hiera-tiny", "main", WEIGHTS),
        ("hf:me/cells@v1.0", "me/cells", "v1.0", WEIGHTS),
        ("hf:me/cells/run-3/best.pt", "me/cells", "main", "run-3/best.pt"),
        ("hf:me/cells@0a1b2c/best.pt", "me/cells", "0a1b2c", "best.pt"),
        ("hf:me/cells@refs/pr/1", "me/cells", "refs/pr/1", WEIGHTS),
        ("hf:me/cells@refs/pr/1/run/best.pt", "me/cells", "refs/pr/1", "run/best.pt"),
    ],
)
def test_a_hub_url_names_a_repository_a_revision_and_a_file(
    url: str, repo: str, revision: str, file: str
) -> None:
    (model,) = configuration(f'[models.mine]\nurl = "{url}"\n').targets
    source = model.source.location
    assert (source.kind, source.repo, source.revision, source.file) == ("hub", repo, revision, file)


@pytest.mark.parametrize(
    "url", ["hf:", "hf:cells", "hf:me/cells@", "hf:me/cells/", "hf:me/c@refs/pr"]
)
def test_an_invalid_hub_url_is_refused(url: str) -> None:
    message = mistakes(f'[models.mine]\nurl = "{url}"\n')
    assert f"[models.mine] url: found '{url}'; allowed: " in message
    assert "hf:OWNER/NAME[@REVISION][/FILE]" in message


def test_a_custom_image_size_is_refused_for_clients_that_do_not_support_it() -> None:
    text = TINY + "image_size = 512\n"
    (model,) = configuration(text).targets
    assert model.source.encoder_options["image_size"] == 512
    message = mistakes(text + 'client = "nimbusimage"\n')
    assert "[models.tiny] image_size: found 512; allowed: 1024 for client nimbusimage" in message
    (native,) = configuration(TINY + "image_size = 1024\n").targets
    assert "image_size" not in native.source.encoder_options


def test_a_custom_architecture_deploys_under_the_models_name() -> None:
    (model,) = configuration('[models.mine]\nurl = "x.pt"\nconfig = "my.yaml"\n').targets
    assert (model.source.architecture, str(model.deploy)) == (
        "my.yaml",
        "public/onnx-models/sam/mine",
    )


def test_missing_files_are_named_when_the_configuration_is_read(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[models.mine]\nurl = "x.pt"\nconfig = "none.yaml"\ntruth = "cells.own:draw"\n')
    with pytest.raises(ConfigurationError) as error:
        load(file)
    assert "[models.mine] config: found 'none.yaml', but there is no file none.yaml" in str(
        error.value
    )
    assert "truth: found 'cells.own:draw', but there is no file cells/own.py" in str(error.value)


def test_model_names_that_differ_only_in_case_are_refused() -> None:
    other = TINY.replace("models.tiny", "models.TINY") + 'folder = "other"\n'
    assert "[models.TINY] name: differs only in case from [models.tiny]" in mistakes(TINY + other)


def test_a_file_without_models_is_refused() -> None:
    assert "allowed: at least one [models.<name>] table" in mistakes("")


def test_a_file_that_is_not_toml_is_refused_with_the_line_number(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text("[models\n")
    with pytest.raises(ConfigurationError, match="line 1"):
        load(file)


def test_a_missing_configuration_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="config=FILE"):
        load(tmp_path / "none.toml")


def test_the_browser_proof_is_automatic_unless_configured_otherwise() -> None:
    assert configuration(TINY).targets[0].browser == "auto"
    assert configuration("[browser]\nenabled = false\n" + TINY).targets[0].browser is False
    assert configuration("[browser]\nenabled = true\n" + TINY).targets[0].browser is True
    own = configuration("[browser]\nenabled = true\n" + TINY + "browser = false\n")
    assert own.targets[0].browser is False


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('enabled = "yes"', "[browser] enabled: found 'yes'; allowed: true, false or \"auto\""),
        ("mask_iou = 1.5", "[browser] mask_iou: found 1.5; allowed: a number above 0, at most 1"),
        ("webgpu = 1", "[browser] webgpu: found 1; allowed: true or false"),
        ("mask_tolerance = 0", "[browser] mask_tolerance: found 0; allowed: a number above 0"),
        ("timeout = 3", "[browser] timeout: unknown"),
    ],
)
def test_a_mistake_in_the_browser_table_is_reported(line: str, complaint: str) -> None:
    assert complaint in mistakes(f"[browser]\n{line}\n{TINY}")


FUSED = TINY + 'attention = "fused"\n'


@pytest.mark.parametrize("text", [FUSED, "[browser]\nenabled = true\n" + FUSED])
def test_fused_attention_is_refused_with_a_browser_proof_because_wasm_lacks_it(text: str) -> None:
    assert "[models.tiny] attention: found 'fused'" in mistakes(text)
    assert "`browser = false`: onnxruntime-web's WASM" in mistakes(text)


@pytest.mark.parametrize(
    "text", [FUSED + "browser = false\n", "[browser]\nenabled = false\n" + FUSED]
)
def test_fused_attention_is_accepted_without_a_browser_proof(text: str) -> None:
    assert configuration(text).sources[0].attention == "fused"


SAM_1 = '[models.x]\nmodel_type = "vit_b"\nurl = "synthetic:"\n'


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("video = true", "[models.x] video: found True; allowed: no video for SAM 1"),
        ("image_size = 512", "[models.x] image_size: found 512; allowed: no image_size for SAM 1"),
        ('client = "nobody"', "[models.x] client: found 'nobody'"),
        ('graphs = ["decoder"]', "which loads encoder and decoder; or another client, bioimage.io"),
    ],
)
def test_an_option_that_does_not_apply_to_sam_1_is_refused(option: str, message: str) -> None:
    assert message in mistakes(f"{SAM_1}{option}\n")


def test_a_client_that_supports_only_sam_2_is_refused_for_efficienttam() -> None:
    model = SAM_1.replace("vit_b", "efficienttam_s")
    message = mistakes(f'{model}client = "osam"\n')
    assert "found 'osam'; allowed: samexporter, nimbusimage for EfficientTAM" in message


def test_an_encoder_over_2_gib_is_refused_but_its_decoder_is_not() -> None:
    model = SAM_1.replace("vit_b", "vit_h")
    assert "2 GiB that a graph in one file can hold" in mistakes(f'{model}client = "samexporter"\n')
    assert configuration(f'{model}client = "bioimage.io"\n').targets[0].graphs == ("decoder",)


def test_fused_attention_is_refused_for_edgetam() -> None:
    text = '[models.x]\nmodel_type = "edgetam"\nurl = "synthetic:"\nbrowser = false\n'
    assert "[models.x] attention: found 'fused'; allowed: plain for EdgeTAM" in mistakes(
        text + 'attention = "fused"\n'
    )


# --- publishing ---


def test_the_repo_pattern_determines_the_repository_of_a_model() -> None:
    found = configuration(f'[publish]\nrepo = "my-lab/{{folder}}-{{model}}"\n{TINY}')
    assert found.publishing is not None
    assert found.publishing.repository(found.targets[0]) == "my-lab/sam2_hiera_tiny-tiny"
    assert (found.publishing.revision, found.publishing.private) == ("main", False)
    assert configuration(TINY).publishing is None


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "[publish] repo: missing; allowed: OWNER/NAME"),
        ('repo = "sam2"', "[publish] repo: found 'sam2'; allowed: OWNER/NAME"),
        ('repo = "a/b/c"', "[publish] repo: found 'a/b/c'; allowed: OWNER/NAME"),
        ('repo = "my-lab/{name}"', "[publish] repo: found 'my-lab/{name}'; allowed: OWNER/NAME"),
        ('repo = "my-lab/-{folder}"', "allowed: OWNER/NAME"),
        ('repo = "my-lab/{folder}.git"', "allowed: OWNER/NAME"),
        ('repo = "my-lab/{folder}--x"', "allowed: OWNER/NAME"),
        ('repo = "a/{folder}"\nrevision = "x/y"', "[publish] revision: found 'x/y'"),
        ('repo = "a/{folder}"\nprivate = "yes"', "[publish] private: found 'yes'; allowed: true"),
        ('repo = "a/{folder}"\nrepos = "b"', "[publish] repos: unknown (did you mean repo?)"),
    ],
)
def test_a_mistake_in_the_publish_table_is_reported(table: str, words: str) -> None:
    assert words in mistakes(f"[publish]\n{table}\n{TINY}")


def test_two_models_in_one_repository_are_refused() -> None:
    small = TINY.replace("tiny", "small")
    assert "tiny and small would both go to a/b" in mistakes(
        f'[publish]\nrepo = "a/b"\n{TINY}{small}'
    )


def test_a_folder_that_is_not_a_valid_repository_name_is_refused() -> None:
    found = mistakes(f'[publish]\nrepo = "a/{{folder}}"\n{TINY}folder = "a+b"\n')
    assert "for [models.tiny] it gives a/a+b" in found


# --- the shared cache ---


def test_the_cache_table_is_read_despite_mistakes_in_other_tables(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[cache]\nurl = "s3://lab/x"\noptions = { key = "k" }\n[models.x]\nopset = 3\n')
    settings = cache_of(file)
    assert settings is not None
    assert (settings.url, settings.options) == ("s3://lab/x", {"key": "k"})


@pytest.mark.parametrize(
    "text", ["", "[cache]\n", "[cache]\nwrite = true\n", "[cache]\nurl = 3\n", "[cache"]
)
def test_a_file_without_a_usable_cache_table_has_no_cache(text: str, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(text)
    assert cache_of(file) is None


# --- documentation ---

# Where a table is documented, if not under its name in configuration.md.
PLACES = {
    "cache": ("cache.md", "# A shared cache"),
    "models": ("configuration.md", "[models.<name>]"),
}


def rows(table: type[Any]) -> list[str]:
    """The rows that document the keys of a table."""
    lines = []
    for key in fields(table):
        if key.default is MISSING:
            default = " required"
        else:
            default = "" if key.default is None else f" `{json.dumps(key.default)}`"
        lines.append(f"| `{key.name}` |{default} | {key.type.__metadata__[-1]} |")
    return lines


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_the_documentation_lists_each_key_with_its_default_and_meaning(table: str) -> None:
    page, heading = PLACES.get(table, ("configuration.md", f"`[{table}]`"))
    _, _, section = (ROOT / "docs" / page).read_text().partition(heading)
    section = section.partition("\n## ")[0]
    listed = [line for line in section.splitlines() if line.startswith("| `")]
    assert listed == rows(TABLES[table])
