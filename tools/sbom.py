"""Writes target/sbom.cdx.json, the list of everything in the function for ARCH, in CycloneDX's format.

    sbom.py ARCH
"""

import shutil
import sys

import build
import environment
from environment import ROOT
from step import exit_on_signals, run


def main():
    [arch] = sys.argv[1:]
    environment.prepare()
    exit_on_signals()
    command = ["cargo", "cyclonedx", "--format", "json", "--spec-version", "1.5", "--override-filename", "sbom.cdx"]
    run("cargo cyclonedx", [*command, "--target", build.rust_target(arch)])
    written = ROOT / "target/sbom.cdx.json"
    written.parent.mkdir(exist_ok=True)
    # cargo-cyclonedx can write only beside Cargo.toml.
    shutil.move(ROOT / "sbom.cdx.json", written)
    print(written.relative_to(ROOT))


main()
