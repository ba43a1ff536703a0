"""The SBOM lists what is compiled into the function, in valid CycloneDX."""

import json
import re
import subprocess

import jsonschema
import pytest
import referencing
from support.paths import CHECKOV, ROOT
from support.release_bundle import run_tool

TARGETS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]


@pytest.fixture(scope="module")
def sbom():
    done = run_tool("sbom.py")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_sbom_lists_exactly_what_cargo_compiles_into_the_function(sbom):
    command = ["cargo", "tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none"]
    command += [argument for target in TARGETS for argument in ("--target", target)]
    tree = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    compiled_in = {f"pkg:cargo/{name}@{version}" for name, version in re.findall(r"^(\S+) v(\S+)", tree, re.MULTILINE)}
    listed = [sbom["metadata"]["component"], *sbom["components"]]
    assert {one["purl"] for one in listed if one["scope"] == "required"} == compiled_in


def test_every_crate_has_a_license_and_the_hash_of_its_archive(sbom):
    lock = (ROOT / "Cargo.lock").read_text()
    assert sbom["components"]
    for component in sbom["components"]:
        assert component["licenses"][0]["expression"]
        assert component["hashes"][0]["content"] in lock, component["name"]


def test_the_sbom_is_valid_cyclonedx(sbom):
    """By the schema that the package cyclonedx-python-lib has, which checkov needs."""
    if not CHECKOV.exists():
        pytest.skip(f"{CHECKOV} isn't there")
    [folder] = CHECKOV.parent.parent.glob("lib/python3.*/site-packages/cyclonedx/schema/_res")
    schemas = {name: json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text()) for name in ("bom-1.5", "spdx")}
    schemas["jsf-0.82"] = json.loads((folder / "jsf-0.82.SNAPSHOT.schema.json").read_text())
    resources = [
        (f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json", referencing.Resource.from_contents(schema))
        for name, schema in schemas.items()
    ]
    registry = referencing.Registry().with_resources(resources)
    validator = jsonschema.Draft7Validator(schemas["bom-1.5"], registry=registry)
    assert [error.message for error in validator.iter_errors(sbom)] == []
    assert list(validator.iter_errors(sbom | {"components": [{"type": "library"}]}))
