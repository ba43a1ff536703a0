"""`make release`: a bundle of what is built, with the other architecture if Rust can build for it."""

import os
import shutil
import subprocess
import sys

import pytest
from support.emulated_function import ARCHITECTURE
from support.paths import ROOT
from support.release_bundle import elf

OTHER = {"x86_64": "arm64", "arm64": "x86_64"}[ARCHITECTURE]
ZIP = "bedrock-braintrust-rotator-{}.zip"
SOURCES = ["Cargo.toml", "Cargo.lock", "LICENSE", "bedrock-role.yaml", "fleet.yaml", "template.yaml", "deploy.py"]
SOURCES += ["docs/deployer-policy.json", "docs/targets.schema.json", "src", "bench/do_nothing.rs", "tools"]
RUSTC = """#!/bin/sh
[ "$2" = target-libdir ] || exec {rustc} "$@"
echo {libdir}
"""
CARGO = """#!/bin/sh
[ "$1" = lambda ] || exec {cargo} "$@"
[ -n "{other}" ] || {{ echo "no linker" >&2; exit 1; }}
while [ "$1" != --lambda-dir ]; do shift; done
mkdir -p "$2/bootstrap" && cp "{other}" "$2/bootstrap/bootstrap"
"""


@pytest.fixture
def tree(tmp_path):
    """A copy of the project in which a function that does nothing is built."""
    tree = tmp_path / "tree"
    for path in SOURCES:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, tree / path)
    built = tree / ".aws-sam/build/RotatorFunction/bootstrap"
    built.parent.mkdir(parents=True)
    built.write_bytes(elf(ARCHITECTURE))
    return tree


def release(tree, libdir="/nowhere", other=""):
    """Runs `make release` where rustc has this folder for the other target, and cargo builds this function for it."""
    programs = tree.parent / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "rustc").write_text(RUSTC.format(rustc=shutil.which("rustc"), libdir=libdir))
    (programs / "cargo").write_text(CARGO.format(cargo=shutil.which("cargo"), other=other))
    for program in programs.iterdir():
        program.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, str(tree / "tools/release.py"), ARCHITECTURE]
    return subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True)


def zips(tree):
    return sorted(path.name for path in (tree / "dist").glob("*.zip"))


def test_an_architecture_whose_target_is_not_installed_is_left_out(tree):
    done = release(tree)
    assert done.returncode == 0, done.stderr
    assert f"{OTHER}: left out, because its Rust target is not installed. To add it: rustup target add" in done.stdout
    assert zips(tree) == [ZIP.format(ARCHITECTURE)]


def test_both_architectures_are_released_if_both_can_be_built(tree, tmp_path):
    (tmp_path / "other").write_bytes(elf(OTHER))
    done = release(tree, libdir=tmp_path, other=tmp_path / "other")
    assert done.returncode == 0, done.stdout
    assert zips(tree) == sorted(ZIP.format(arch) for arch in (ARCHITECTURE, OTHER))


def test_a_release_that_cannot_be_built_leaves_dist_as_it_was(tree, tmp_path):
    assert release(tree).returncode == 0
    (tree / "dist/mine").touch()
    done = release(tree, libdir=tmp_path)
    assert done.returncode == 1 and "no linker" in done.stdout, done
    assert (tree / "dist/mine").exists() and zips(tree) == [ZIP.format(ARCHITECTURE)]
