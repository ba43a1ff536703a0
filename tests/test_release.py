"""The release bundle: what is in it, that it is the same every time, and that it deploys and rotates."""

import json
import shutil
import subprocess
import uuid
import zipfile

import pytest
from samcli.yamlhelper import yaml_parse
from support.deployed_function import parameters_of, rotate_deployed
from support.deployment import deploy_bundle
from support.emulated_function import ARCHITECTURE
from support.paths import BOOTSTRAP, ROOT
from support.release_bundle import elf, make_bundle, run_tool

ZIP = "bedrock-braintrust-rotator-{}.zip"
ALWAYS = {"LICENSE", "SHA256SUMS", "bedrock-role.yaml", "cloudformation.json", "deployer-policy.json", "sbom.cdx.json"}
ALWAYS |= {"deploy.py", "fleet.yaml", "targets.schema.json"}
OTHER = {"x86_64": "arm64", "arm64": "x86_64"}[ARCHITECTURE]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "dist")


@pytest.fixture(scope="module")
def plain(bundle):
    return json.loads((bundle / "cloudformation.json").read_text())


@pytest.fixture(scope="module")
def source():
    return yaml_parse((ROOT / "template.yaml").read_text())


@pytest.fixture
def of(tmp_path):
    """Makes the bundle of a program that does nothing, for this architecture."""

    def of(arch, name):
        (tmp_path / f"bootstrap-{arch}").write_bytes(elf(arch))
        return make_bundle(tmp_path / name, arch, tmp_path / f"bootstrap-{arch}")

    return of


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def references(value):
    """Every Ref in a part of a template, in its order."""
    if isinstance(value, dict):
        if set(value) == {"Ref"}:
            yield value["Ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_the_bundle_has_everything_and_its_checksums_are_right(bundle):
    assert set(contents(bundle)) == ALWAYS | {ZIP.format(ARCHITECTURE)}
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == len(ALWAYS), done
    assert (bundle / "deploy.py").stat().st_mode & 0o100


def test_the_zip_file_has_only_the_function_which_lambda_can_execute(bundle):
    with zipfile.ZipFile(bundle / ZIP.format(ARCHITECTURE)) as archive:
        [entry] = archive.infolist()
        assert (entry.filename, entry.external_attr >> 16) == ("bootstrap", 0o100755)
        assert archive.read(entry) == BOOTSTRAP.read_bytes()


def test_the_release_build_has_at_most_4_5_megabytes():
    assert (ROOT / ".aws-sam/build/RotatorFunction/bootstrap").stat().st_size <= 4_500_000


def test_two_bundles_of_the_same_sources_are_identical(of):
    assert contents(of(ARCHITECTURE, "first")) == contents(of(ARCHITECTURE, "second"))


def test_a_bundle_replaces_all_that_the_folder_had(of):
    first = of(ARCHITECTURE, "dist")
    (first / "left-over").touch()
    assert set(contents(of(OTHER, "dist"))) == ALWAYS | {ZIP.format(OTHER)}
    assert [path.name for path in first.parent.iterdir() if path.name.startswith(".")] == []


def test_a_bundle_that_fails_leaves_the_old_one(of, tmp_path):
    before = contents(of(ARCHITECTURE, "dist"))
    (tmp_path / "other").write_bytes(elf("riscv64"))
    done = run_tool("bundle.py", tmp_path / "dist", f"{ARCHITECTURE}={tmp_path / 'other'}")
    assert done.returncode == 1
    assert contents(tmp_path / "dist") == before


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("{arch}={folder}/other", "was built for {other}, not for {arch}. Build it with `make build ARCH={arch}`"),
        ("{arch}={folder}/strange", "was built for neither x86_64 nor arm64, not for {arch}"),
        ("{arch}={folder}/text", "was built for neither x86_64 nor arm64, not for {arch}"),
        ("{arch}={folder}/missing", "missing is not there. Build it with `make build ARCH={arch}`"),
        ("mips={folder}/other", "is not ARCH=BOOTSTRAP. Type, for example, x86_64=target/release/bootstrap"),
        ("{arch}", "is not ARCH=BOOTSTRAP"),
    ],
)
def test_a_wrong_function_is_refused(tmp_path, argument, message):
    (tmp_path / "other").write_bytes(elf(OTHER))
    (tmp_path / "strange").write_bytes(elf("riscv64"))
    (tmp_path / "text").write_text("#!/bin/sh")
    names = {"arch": ARCHITECTURE, "other": OTHER, "folder": tmp_path}
    done = run_tool("bundle.py", tmp_path / "dist", argument.format(**names))
    assert done.returncode == 1 and message.format(**names) in done.stderr, done
    assert not (tmp_path / "dist").exists()


def test_bundles_of_two_architectures_are_joined(of, tmp_path):
    bundles = of("x86_64", "first"), of("arm64", "second")
    done = run_tool("join_bundles.py", tmp_path / "joined", *bundles)
    assert done.returncode == 0, done.stderr
    assert set(contents(tmp_path / "joined")) == ALWAYS | {ZIP.format("x86_64"), ZIP.format("arm64")}
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "joined", capture_output=True, check=True)


def test_bundles_of_different_sources_are_not_joined(of, tmp_path):
    first, second = of("x86_64", "first"), of("arm64", "second")
    template = (second / "cloudformation.json").read_text()
    (second / "cloudformation.json").write_text(template + "\n")
    done = run_tool("join_bundles.py", tmp_path / "joined", first, second)
    assert done.returncode == 1 and "doesn't match its SHA256SUMS: cloudformation.json" in done.stderr, done
    sums = subprocess.run("sha256sum $(ls -I SHA256SUMS)", shell=True, cwd=second, capture_output=True, check=True)
    (second / "SHA256SUMS").write_bytes(sums.stdout)
    done = run_tool("join_bundles.py", tmp_path / "joined", first, second)
    assert done.returncode == 1 and "cloudformation.json in" in done.stderr, done
    assert not (tmp_path / "joined").exists()


def test_the_plain_template_needs_no_transform_and_keeps_everything_else(plain, source):
    assert "Transform" not in plain
    assert {name for name in plain["Parameters"]} - set(source["Parameters"]) == {
        "CodeBucket", "CodeKey", "Architecture",
    }  # fmt: skip
    for name, parameter in source["Parameters"].items():
        assert plain["Parameters"][name] == parameter
    for section in ("Rules", "Conditions", "Outputs"):
        assert plain[section] == source[section]
    for name, resource in source["Resources"].items():
        if resource["Type"] != "AWS::Serverless::Function":
            assert plain["Resources"][name] == resource
    assert not [one["Type"] for one in plain["Resources"].values() if one["Type"].startswith("AWS::Serverless")]


def test_the_plain_template_refers_to_the_same_parameters(plain, source):
    def used(template):
        return {name for name in references(template["Resources"]) if name in plain["Parameters"]}

    assert used(plain) == used(source) | {"CodeBucket", "CodeKey", "Architecture"}


def test_the_console_groups_every_parameter_of_the_plain_template(plain):
    groups = plain["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(plain["Parameters"])


def test_cloudformation_accepts_the_plain_template_from_s3(bundle):
    # CloudFormation's limit for a template in S3.
    assert (bundle / "cloudformation.json").stat().st_size <= 1_000_000


@pytest.mark.parametrize("kind", ["temporary", "long_term_api_key"])
def test_the_bundle_deploys_and_rotates(world, bundle, kind):
    ai_secret = world.new_ai_secret()
    parameters = parameters_of(world, ai_secret, {"Kind": kind})
    outputs = deploy_bundle(world.cloud, bundle, ARCHITECTURE, f"rotator-{uuid.uuid4().hex[:8]}", parameters)
    function = world.client("lambda").get_function_configuration(FunctionName=outputs["FunctionName"])
    assert function["Architectures"] == [ARCHITECTURE]
    assert rotate_deployed(world, outputs)["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)


def test_the_version_is_the_same_everywhere(plain, source):
    application = source["Metadata"]["AWS::ServerlessRepo::Application"]
    assert plain["Metadata"]["Version"] == application["SemanticVersion"]
    assert f"ref=v{plain['Metadata']['Version']}" in (ROOT / "docs/terraform.md").read_text()


@pytest.mark.parametrize(
    ("version", "message"),
    [("0.0.1", "Tag a commit that has the tag's version"), (None, "has no section for")],
)
def test_a_release_needs_a_matching_tag_and_a_section_of_the_changelog(version, message, plain):
    done = run_tool("release_notes.py", version or plain["Metadata"]["Version"])
    assert done.returncode == 1 and message in done.stderr, done


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path):
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "Cargo.toml").write_text('[package]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## Unreleased\n\n- later\n\n## 1.2.3 - 2026-01-02\n\n- this\n\n## 1.2.2 - 2026-01-01\n\n- older\n"
    )
    done = run_tool(tmp_path / "tools/release_notes.py", "1.2.3")
    assert (done.returncode, done.stdout) == (0, "- this\n")


def test_only_a_commit_of_main_is_released(tmp_path):
    workflow = yaml_parse((ROOT / ".github/workflows/release.yml").read_text())
    [check] = [step["run"] for step in workflow["jobs"]["build"]["steps"] if "merge-base" in step.get("run", "")]
    ours = ["-c", "user.name=a", "-c", "user.email=a@example.com"]

    def git(*arguments, folder=tmp_path / "origin"):
        subprocess.run(["git", *ours, *arguments], cwd=folder, check=True, capture_output=True)

    (tmp_path / "origin").mkdir()
    git("init", "--initial-branch", "main")
    git("commit", "--allow-empty", "--message", "one")
    git("tag", "v1")
    git("commit", "--allow-empty", "--message", "two")
    git("checkout", "-b", "another", "v1")
    git("commit", "--allow-empty", "--message", "unreviewed")
    git("tag", "v2")
    git("clone", "origin", "clone", folder=tmp_path)
    for tag, status in (("v1", 0), ("v2", 1)):
        git("checkout", tag, folder=tmp_path / "clone")
        done = subprocess.run(["bash", "-e", "-c", check], cwd=tmp_path / "clone", capture_output=True, text=True)
        assert done.returncode == status and ("is not on main" in done.stdout) == bool(status), done
