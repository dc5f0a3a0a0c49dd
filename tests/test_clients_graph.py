"""Clients in the configuration and in the build: which files each gets, and which are shared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from project import Outcome, Project

from tasks.clients.client import Client, description
from tasks.clients.contract import POINT_LABELS
from tasks.clients.registry import CLIENTS
from tasks.config.models import GRAPHS, Variant
from tasks.config.parse import load, parse
from tasks.config.schema import Configuration, ConfigurationError
from tasks.inference.naming import rename_tensors

TINY = {"model_type": "sam2_hiera_tiny", "url": "synthetic:"}
Tables = Mapping[str, Any]


def configured(model: Tables, **tables: Tables) -> Configuration:
    return parse({**tables, "models": {"tiny": {**TINY, **model}}}, Path("models.toml"))


def refusal(model: Tables, **tables: Tables) -> str:
    with pytest.raises(ConfigurationError) as error:
        configured(model, **tables)
    return str(error.value)


# --- the configuration -------------------------------------------------------------------------


def test_the_default_client_is_samexporter() -> None:
    (model,) = configured({}).targets
    assert (model.client.name, model.masks, model.prompts) == ("samexporter", "multi", "many")


def test_a_model_can_override_the_default_client() -> None:
    tables = {"nimbus": TINY, "other": {**TINY, "client": "osam", "folder": "other"}}
    config = parse({"defaults": {"client": "nimbusimage"}, "models": tables}, Path("m.toml"))
    assert [model.client.name for model in config.targets] == ["nimbusimage", "osam"]


def test_nimbusimage_gets_ranked_masks_for_one_prompt_and_an_ort_encoder() -> None:
    (model,) = configured({"client": "nimbusimage"}).targets
    assert (model.masks, model.prompts) == ("ranked", "one")
    assert model.variants == (Variant(), Variant(format="ort"))
    names = {model.file_name(graph, each) for graph in GRAPHS for each in model.variants}
    assert names == {"encoder.onnx", "encoder.ort", "decoder.onnx"}


def test_each_client_of_a_model_gets_its_own_name_and_folder() -> None:
    config = configured({"clients": ["nimbusimage", "transformers.js"]})
    assert [(model.name, model.deploy.name) for model in config.targets] == [
        ("tiny", "sam2_hiera_tiny"),
        ("tiny-transformers.js", "sam2_hiera_tiny-transformers.js"),
    ]
    assert [each.name for each in config.sources] == ["tiny"]


@pytest.mark.parametrize("key", ["deploy", "folder"])
def test_the_client_placeholder_works_anywhere_in_the_path(key: str) -> None:
    text = {"deploy": "apps/{client}/sam", "folder": "sam2_{client}"}[key]
    models = configured({"clients": ["nimbusimage", "osam"], key: text}).targets
    assert [str(model.deploy) for model in models] == {
        "deploy": ["apps/nimbusimage/sam/sam2_hiera_tiny", "apps/osam/sam/sam2_hiera_tiny"],
        "folder": [
            "public/onnx-models/sam/sam2_nimbusimage",
            "public/onnx-models/sam/sam2_osam",
        ],
    }[key]


@pytest.mark.parametrize(
    ("model_type", "folder"),
    [("sam2_hiera_tiny", "sam2_hiera_tiny"), ("sam2.1_hiera_tiny", "sam2_1_hiera_tiny")],
)
def test_nimbusimages_folder_name_starts_with_the_required_prefix(
    model_type: str, folder: str
) -> None:
    (model,) = configured({"model_type": model_type, "client": "nimbusimage"}).targets
    assert model.deploy.name == folder
    (other,) = configured({"model_type": model_type}).targets
    assert other.deploy.name == model_type


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ({"client": "nimbus"}, "client: found 'nimbus'; allowed: samexporter, nimbusimage"),
        (
            {"client": "transformers.js", "masks": "single"},
            "masks: found 'single'; allowed: multi, ranked for client transformers.js",
        ),
        (
            {"clients": ["nimbusimage", "osam"], "masks": "ranked"},
            "masks: found 'ranked'; allowed: all for client osam",
        ),
        (
            {"client": "osam", "prompts": "many"},
            "prompts: found 'many'; allowed: one for client osam",
        ),
        (
            {"client": "transformers.js", "formats": ["ort"]},
            "formats: found ['ort']; allowed: onnx for client transformers.js",
        ),
        (
            {"client": "nimbusimage", "folder": "sam2.1_tiny"},
            "folder: found 'sam2.1_tiny'; allowed: a name that begins with sam2_",
        ),
        (
            {"client": "osam", "clients": ["osam"]},
            "client: found 'osam'; allowed: client or ",
        ),
        ({"clients": []}, "clients: found []; allowed: a list of some of samexporter"),
    ],
)
def test_an_option_that_a_client_does_not_support_is_refused_with_the_reason(
    model: Tables, complaint: str
) -> None:
    assert f"[models.tiny] {complaint}" in refusal(model)


def test_two_clients_in_one_folder_are_refused() -> None:
    other = {**TINY, "client": "osam", "folder": "sam2_hiera_tiny"}
    tables = {"one": {**TINY, "client": "nimbusimage"}, "two": other}
    with pytest.raises(ConfigurationError, match=r"for osam, where .*for nimbusimage"):
        parse({"models": tables}, Path("models.toml"))


def test_a_build_name_used_by_two_tables_is_refused() -> None:
    tables = {"a": {**TINY, "clients": ["nimbusimage", "osam"]}, "a-osam": {**TINY, "folder": "f"}}
    with pytest.raises(ConfigurationError, match=r"\[models.a-osam\] clients: .*another name"):
        parse({"models": tables}, Path("models.toml"))


@pytest.mark.parametrize("client", ["nimbusimage", "osam"])
def test_an_image_size_that_a_client_does_not_support_is_refused(
    client: str, tmp_path: Path
) -> None:
    (tmp_path / "small.yaml").write_text("model:\n  image_size: 512\n")
    file = tmp_path / "models.toml"
    table = f'[models.m]\nconfig = "{tmp_path}/small.yaml"\nurl = "synthetic:"\n'
    file.write_text(f'{table}client = "{client}"\n')
    with pytest.raises(ConfigurationError, match="sends only images of 1024 pixels"):
        load(file)
    file.write_text(table)
    assert load(file).targets[0].client.name == "samexporter"


# --- names -------------------------------------------------------------------------------------


def doubling() -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    nodes = [helper.make_node("Add", ["x", "x"], ["inner"]), helper.make_node("Neg", ["x"], ["z"])]
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])
    nodes.append(helper.make_node("Neg", ["inner"], ["y"]))
    return helper.make_model(helper.make_graph(nodes, "doubling", [x], [y, z]))


def test_tensors_get_the_clients_names_and_order() -> None:
    model = doubling()
    names = {"inputs": [["x", "pixels"]], "outputs": [["z", "scores"], ["y", "masks"]]}
    rename_tensors(model.graph, names)
    onnx.checker.check_model(model, full_check=True)
    assert [each.name for each in model.graph.input] == ["pixels"]
    assert [each.name for each in model.graph.output] == ["scores", "masks"]


def test_an_output_without_a_client_name_is_removed_with_its_nodes() -> None:
    model = doubling()
    rename_tensors(model.graph, {"inputs": [["x", "pixels"]], "outputs": [["z", "scores"]]})
    onnx.checker.check_model(model, full_check=True)
    assert [each.name for each in model.graph.output] == ["scores"]
    assert [each.op_type for each in model.graph.node] == ["Neg"]


def test_a_name_that_the_graph_already_uses_is_refused() -> None:
    with pytest.raises(ValueError, match="already has tensors named inner"):
        rename_tensors(doubling().graph, {"inputs": [["x", "inner"]], "outputs": [["y", "y"]]})


# --- documents ---------------------------------------------------------------------------------


def manifest_for(client: Client) -> dict[str, Any]:
    tensors = {
        "encoder": {"inputs": [{"shape": [1, 3, 1024, 1024]}], "outputs": []},
        "decoder": {"inputs": [], "outputs": [{"shape": [1, 3, 256, 256], "role": "masks"}]},
    }
    names = {"encoder": "encoder.onnx", "decoder": "decoder.onnx"}
    return {
        "model": "a+b",
        **description(client, client.masks[0], client.prompts[0], {}, tensors, names),
        "variants": [
            {"precision": "fp32", "deployed": False},
            {"precision": "q8", "deployed": True},
        ],
        "recommended": {"wasm": {"variant": "q8", "why": "it is small"}},
    }


def test_the_config_for_transformers_js_names_the_precision_per_device() -> None:
    client = CLIENTS["transformers.js"]
    texts = client.documents(manifest_for(client))
    config = json.loads(texts["config.json"])
    assert config["model_type"] == "sam2"
    assert config["vision_config"]["num_feature_levels"] == 3
    settings = config["transformers.js_config"]
    assert settings["dtype"] == "q8"
    assert {device: each["dtype"] for device, each in settings["device_config"].items()} == {
        "wasm": "q8",
        "webgpu": "q8",  # the only deployed precision
    }
    preprocessor = json.loads(texts["preprocessor_config.json"])
    assert preprocessor["size"] == {"height": 1024, "width": 1024}
    assert preprocessor["image_processor_type"] == "Sam2ImageProcessor"


def test_anylabeling_and_x_anylabeling_each_get_a_yaml_file() -> None:
    client = CLIENTS["anylabeling"]
    texts = client.documents(manifest_for(client))
    assert texts["x-anylabeling.yaml"].splitlines() == [
        'type: "segment_anything_2"',
        'name: "a_b"',
        'display_name: "a_b"',
        'encoder_model_path: "encoder.onnx"',
        'decoder_model_path: "decoder.onnx"',
    ]
    assert "input_size: 1024" in texts["anylabeling.yaml"]


def test_both_programs_get_the_same_yaml_with_image_sizes_for_sam_1() -> None:
    manifest = manifest_for(CLIENTS["anylabeling"])
    manifest["encoder"]["inputs"] = [{"shape": [684, 1024, 3]}]
    texts = CLIENTS["anylabeling (sam)"].documents(manifest)
    assert texts["x-anylabeling.yaml"] == texts["anylabeling.yaml"]
    assert texts["anylabeling.yaml"].splitlines() == [
        'type: "segment_anything"',
        'name: "a_b"',
        'display_name: "a_b"',
        'encoder_model_path: "encoder.onnx"',
        'decoder_model_path: "decoder.onnx"',
        "input_size: 1024",
        "max_width: 1024",
        "max_height: 684",
    ]


def test_the_manifest_of_a_canvas_encoder_states_raw_pixel_values() -> None:
    client = CLIENTS["anylabeling (sam)"]
    assert manifest_for(client)["preprocessing"] == {
        "layout": "HWC",
        "channels": "RGB",
        "value_range": [0, 255],
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "resize": "canvas",
        "padding": "black",
        "point_labels": dict(POINT_LABELS),
    }


# --- the build ---------------------------------------------------------------------------------

SHARED = {"checkpoint:tiny", "export:tiny", "simplify:tiny"}


class Build(Project):
    """One synthetic model for some clients; no browser."""

    def write(self, clients: list[str], more: str = "") -> None:
        self.configure(
            f'[browser]\nenabled = false\n[models.tiny]\nmodel_type = "sam2_hiera_tiny"\n'
            f'url = "synthetic:"\nclients = {json.dumps(clients)}\n{more}\n'
        )

    def folder(self, client: str = "") -> Path:
        return self.root / f"public/onnx-models/sam/sam2_hiera_tiny{client and '-' + client}"

    def files(self, client: str = "") -> set[str]:
        folder = self.folder(client)
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Build:
    build = Build(tmp_path_factory.mktemp("built") / "project", cheap=True)
    build.write(["nimbusimage", "transformers.js"])
    assert succeeded(build.build()) == SHARED | {
        "variant:tiny:fp32.ort",
        "verify:tiny",
        "deploy:tiny",
        "verify:tiny-transformers.js",
        "deploy:tiny-transformers.js",
    }
    return build


@pytest.fixture
def built(built_once: Build, tmp_path: Path) -> Build:
    return built_once.copy_to(tmp_path / "project")


def succeeded(outcome: Outcome) -> set[str]:
    assert outcome.status == 0, outcome.output
    return outcome.ran


def test_each_client_gets_its_files_in_the_expected_places(built: Build) -> None:
    assert built.files() == {"encoder.onnx", "encoder.ort", "decoder.onnx", "manifest.json"}
    assert built.files("transformers.js") == {
        "config.json",
        "preprocessor_config.json",
        "manifest.json",
        "onnx/vision_encoder.onnx",
        "onnx/prompt_encoder_mask_decoder.onnx",
    }


def test_the_manifest_names_every_file_and_the_client(built: Build) -> None:
    for client, name in (("", "nimbusimage"), ("transformers.js", "transformers.js")):
        manifest = json.loads((built.folder(client) / "manifest.json").read_text())
        assert manifest["client"] == name
        assert manifest["files"].keys() == built.files(client) - {"manifest.json"}
    assert built.build().ran == set()


def test_adding_a_client_does_not_rerun_the_proofs_of_other_clients(built: Build) -> None:
    """The export runs again for the new decoder; unchanged outputs count as fresh."""
    built.write(["nimbusimage", "transformers.js", "osam"])
    assert succeeded(built.build()) == {
        "export:tiny",
        "simplify:tiny",
        "verify:tiny-osam",
        "deploy:tiny-osam",
    }


def test_clients_with_equal_decoders_share_one_decoder(built: Build) -> None:
    built.write(["samexporter", "anylabeling"])
    succeeded(built.build())
    one, other = built.folder(), built.folder("anylabeling")
    assert (one / "decoder.onnx").read_bytes() == (other / "decoder.onnx").read_bytes()
    names = {path.name for path in (built.root / "build/models/tiny/exported").iterdir()}
    assert "decoder-anylabeling.onnx" not in names
    assert {"x-anylabeling.yaml", "anylabeling.yaml"} <= built.files("anylabeling")


def test_an_edited_or_missing_client_document_is_deployed_again(built: Build) -> None:
    config = built.folder("transformers.js") / "config.json"
    before = config.read_text()
    config.write_text("{}")
    assert succeeded(built.build()) == {"deploy:tiny-transformers.js"}
    assert config.read_text() == before
    config.unlink()
    assert succeeded(built.build()) == {"deploy:tiny-transformers.js"}
    assert config.read_text() == before


def test_a_change_to_a_clients_code_redeploys_its_documents(built: Build) -> None:
    source = built.root / "tasks/clients/transformers_js.py"
    source.write_text(source.read_text().replace('"resample": 2', '"resample": 3'))
    assert succeeded(built.build()) == {"deploy:tiny-transformers.js"}
    deployed = built.folder("transformers.js") / "preprocessor_config.json"
    assert '"resample": 3' in deployed.read_text()


def test_a_renamed_tensor_reruns_the_stages_of_that_client_only(
    built: Build,
) -> None:
    source = built.root / "tasks/clients/transformers_js.py"
    source.write_text(source.read_text().replace('"pixel_values"', '"pixels"'))
    ran = succeeded(built.build())
    assert {"simplify:tiny", "verify:tiny-transformers.js", "deploy:tiny-transformers.js"} <= ran
    assert not {"export:tiny", "verify:tiny", "deploy:tiny"} & ran


def test_a_variant_is_made_once_for_all_clients(built: Build) -> None:
    built.write(["nimbusimage", "transformers.js"], 'variants = ["fp32", "q8"]')
    ran = succeeded(built.build())
    assert {"variant:tiny:q8", "variant:tiny:q8.ort"} <= ran
    assert not {name for name in ran if name.startswith("variant:tiny-")}
    assert "onnx/vision_encoder_quantized.onnx" in built.files("transformers.js")
    assert "encoder_quantized.ort" in built.files()


def test_prune_removes_the_folders_of_a_client_no_longer_configured(built: Build) -> None:
    built.write(["nimbusimage"])
    assert succeeded(built.build()) == {"export:tiny", "simplify:tiny"}
    outcome = built.doit("prune", "--yes")
    assert outcome.status == 0
    assert not built.folder("transformers.js").exists()
    assert built.files() == {"encoder.onnx", "encoder.ort", "decoder.onnx", "manifest.json"}


def test_a_file_in_place_of_a_folder_stops_the_deploy_without_changes(built: Build) -> None:
    folder = built.folder("transformers.js")
    shutil.rmtree(folder / "onnx")
    (folder / "onnx").write_text("mine")
    (folder / "config.json").unlink()
    outcome = built.doit("run")
    assert outcome.status != 0
    assert "Traceback" not in outcome.output
    assert str(folder.relative_to(built.root) / "onnx") in outcome.output
    assert (folder / "onnx").read_text() == "mine"
    assert not (folder / "config.json").exists()
