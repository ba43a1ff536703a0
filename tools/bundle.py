"""Writes the release bundle into FOLDER, which appears complete or not at all.

    bundle.py FOLDER ARCH=BOOTSTRAP ...

ARCH is x86_64 or arm64, and BOOTSTRAP the function that was built for it. What FOLDER had before is replaced.
"""

import os
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import cloudformation
import environment
import sbom
from bundle_folder import replace
from environment import ROOT

NAME = "bedrock-braintrust-rotator"
COPIED = ["deploy.py", "bedrock-role.yaml", "fleet.yaml", "LICENSE"]
COPIED += ["docs/targets.schema.json", "docs/deployer-policy.json"]
# The field e_machine of an ELF file.
MACHINES = {"x86_64": 62, "arm64": 183}


def write_bundle(folder, bootstraps):
    """`bootstraps` are the paths of the functions, by architecture."""
    for arch, bootstrap in bootstraps.items():
        _check_architecture(arch, bootstrap)

    def write(new):
        for arch, bootstrap in bootstraps.items():
            _write_zip(new / f"{NAME}-{arch}.zip", bootstrap.read_bytes())
        (new / "cloudformation.json").write_text(cloudformation.plain_template())
        (new / "sbom.cdx.json").write_text(sbom.bill())
        for path in COPIED:
            shutil.copy(ROOT / path, new / Path(path).name)

    replace(folder, write)


def _write_zip(path, bootstrap):
    # The same function makes the same zip file: no time, no owner, and the mode that Lambda needs.
    entry = zipfile.ZipInfo("bootstrap", date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system, entry.external_attr = 3, 0o100755 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, bootstrap, compresslevel=9)


def _check_architecture(arch, bootstrap):
    with bootstrap.open("rb") as file:
        header = file.read(20)
    machine = struct.unpack_from("<H", header, 18)[0] if header[:4] == b"\x7fELF" and len(header) == 20 else None
    if machine != MACHINES[arch]:
        is_for = next((known for known, number in MACHINES.items() if number == machine), "neither x86_64 nor arm64")
        sys.exit(f"{bootstrap} was built for {is_for}, not for {arch}. Build it with `make build ARCH={arch}`.")


def _parsed(arguments):
    bootstraps = {}
    for argument in arguments:
        arch, _, path = argument.partition("=")
        if arch not in MACHINES or not path:
            sys.exit(f"{argument} is not ARCH=BOOTSTRAP. Type, for example, x86_64=target/release/bootstrap.")
        if not os.path.isfile(path):
            sys.exit(f"{path} is not there. Build it with `make build ARCH={arch}`.")
        bootstraps[arch] = Path(path)
    return bootstraps


def main():
    if len(sys.argv) < 3:
        sys.exit("Usage: bundle.py FOLDER ARCH=BOOTSTRAP ...")
    environment.prepare()
    write_bundle(Path(sys.argv[1]).resolve(), _parsed(sys.argv[2:]))


if __name__ == "__main__":
    main()
