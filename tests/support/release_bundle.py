"""A release bundle with the function that the tests run."""

import subprocess
import sys
from pathlib import Path

from .emulated_function import ARCHITECTURE
from .paths import BOOTSTRAP, ROOT


def run_tool(name: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / name), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def make_bundle(folder: Path, arch: str = ARCHITECTURE, bootstrap: Path = BOOTSTRAP) -> Path:
    done = run_tool("bundle.py", folder, f"{arch}={bootstrap}")
    assert done.returncode == 0, done.stderr
    return folder


def elf(arch: str) -> bytes:
    """The beginning of a program for this architecture."""
    machine = {"x86_64": 62, "arm64": 183, "riscv64": 243}[arch]
    return b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00" + machine.to_bytes(2, "little")
