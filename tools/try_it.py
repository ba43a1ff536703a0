"""Compiles the function and installs the local AWS side by side, and then tries it with run.py.

    try_it.py KIND TRIGGER PROJECT [end_to_end]

The function is the debug build, because a release build takes minutes longer. Only this machine's own Python and cargo
are needed.
"""

import signals

if __name__ == "__main__":
    signals.exit_on_signals(signals.say_stopped)

import os  # noqa: E402
import sys  # noqa: E402

import environment  # noqa: E402
import install_python  # noqa: E402
import local_stack  # noqa: E402
from environment import ROOT  # noqa: E402
from step import Step, run_side_by_side  # noqa: E402

BOOTSTRAP = ROOT / "target/debug/bootstrap"
# What the development dependencies turn on, so that `cargo test` can reuse what this compiles.
FEATURES = ["--features", "base64/default,serde_json/alloc,tokio/macros,tokio/test-util"]
COMPILE = ["cargo", "build", "--locked", "--bin", "bootstrap", *FEATURES]
INSTALL = [sys.executable, ROOT / "tools/install_python.py", "ministack"]


def prepare():
    """Leaves what is up to date as it is: cargo decides about the function, and the lock file about the local AWS."""
    compiling, installing = [Step("compile the function", COMPILE)], []
    if not install_python.is_installed("ministack"):
        installing.append(Step("install the local AWS", INSTALL))
    if not BOOTSTRAP.exists():
        print("The first run takes two to three minutes on two cores. The next takes seconds.", flush=True)
    if run_side_by_side(compiling, installing):
        sys.exit(1)


def main():
    environment.prepare()
    start = local_stack.Start()
    prepare()
    start.end()
    os.environ["BOOTSTRAP"] = str(BOOTSTRAP)
    python = ROOT / ".tools/ministack/bin/python"
    signals.hold()
    os.execv(python, [python, ROOT / "tools/run.py", *sys.argv[1:]])


if __name__ == "__main__":
    main()
