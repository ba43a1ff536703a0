"""Prints the list of everything in the function (an SBOM), in CycloneDX's JSON format.

It has the crates that are compiled into the function for either architecture, and those that only run while it is built
(procedural macros and build scripts) as "excluded". It is the same on every machine.
"""

import json
import subprocess
import sys
import tomllib
import uuid

import environment
from environment import ROOT

TARGETS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def metadata():
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    command += [argument for target in TARGETS for argument in ("--filter-platform", target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


class Graph:
    """The crates that the function depends on, without those that only its tests need."""

    def __init__(self, metadata):
        self.root = metadata["resolve"]["root"]
        self.packages = {package["id"]: package for package in metadata["packages"]}
        self.nodes = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}
        self.used = self.reached(lambda id, kind: kind in (None, "build"))
        # A procedural macro is a normal dependency, but only the compiler runs it.
        self.compiled_in = self.reached(lambda id, kind: kind is None and not self.is_macro(id))

    def is_macro(self, id):
        return any("proc-macro" in target["kind"] for target in self.packages[id]["targets"])

    def dependencies(self, id, follows):
        for dependency in self.nodes[id]:
            if any(follows(dependency["pkg"], kind["kind"]) for kind in dependency["dep_kinds"]):
                yield dependency["pkg"]

    def reached(self, follows):
        found, waiting = set(), [self.root]
        while waiting:
            id = waiting.pop()
            if id not in found:
                found.add(id)
                waiting += self.dependencies(id, follows)
        return found


def component(package, digest, compiled_in):
    name, version = package["name"], package["version"]
    described = {
        "type": "library",
        "bom-ref": reference(package),
        "name": name,
        "version": version,
        "scope": "required" if compiled_in else "excluded",
        "purl": reference(package),
    }
    if package["license"]:
        # An older way to write OR, which is no valid expression.
        described["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if digest:
        described["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return described


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def digests():
    """The hash of each crate's archive, by name and version."""
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return {(package["name"], package["version"]): package.get("checksum") for package in packages}


def bill():
    graph, of_archive = Graph(metadata()), digests()
    crates = sorted(graph.used - {graph.root}, key=lambda id: reference(graph.packages[id]))
    foreign = [id for id in crates if graph.packages[id]["source"] != REGISTRY]
    if foreign:
        sys.exit(f"The SBOM can name only crates of crates.io, and these come from elsewhere: {', '.join(foreign)}")

    def described(id):
        package = graph.packages[id]
        return component(package, of_archive[package["name"], package["version"]], id in graph.compiled_in)

    def depends_on(id):
        found = graph.dependencies(id, lambda other, kind: other in graph.used and kind in (None, "build"))
        return {"ref": reference(graph.packages[id]), "dependsOn": sorted(reference(graph.packages[x]) for x in found)}

    contents = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": described(graph.root) | {"type": "application"}},
        "components": [described(id) for id in crates],
        "dependencies": [depends_on(id) for id in [graph.root, *crates]],
    }
    # Derived from the contents, so that the same sources have the same SBOM.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(contents, sort_keys=True))
    return json.dumps(contents | {"serialNumber": f"urn:uuid:{serial}"}, indent=1) + "\n"


if __name__ == "__main__":
    environment.prepare()
    sys.stdout.write(bill())
