"""Installs the Python tools as pip would, and one at a time."""

import subprocess
import sys

import pytest
from support.paths import ROOT


@pytest.fixture
def install_python(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    import install_python

    return install_python


def test_uv_uses_what_pip_was_configured_with(install_python):
    shown = """
:env:.cert='/etc/ssl/company.pem'
:env:.default-timeout='180'
global.cert='/etc/ssl/other.pem'
global.index-url='https://mirror.example.com/simple'
install.trusted-host='mirror.example.com'
"""
    assert install_python.for_uv(shown) == {
        "SSL_CERT_FILE": "/etc/ssl/company.pem",
        "UV_DEFAULT_INDEX": "https://mirror.example.com/simple",
        "UV_INSECURE_HOST": "mirror.example.com",
    }


def test_a_changed_lock_file_is_installed_again(install_python, monkeypatch, tmp_path):
    for name in ("ROOT", "TOOLS"):
        monkeypatch.setattr(install_python, name, tmp_path)
    environment, lock = tmp_path / "example", tmp_path / "tools/example.lock"
    lock.parent.mkdir()
    lock.write_text("example==1.0")
    assert not install_python.is_installed("example")
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").symlink_to(sys.executable)
    (environment / "installed").write_text(install_python.digest("example"))
    assert install_python.is_installed("example")
    lock.write_text("example==1.1")
    assert not install_python.is_installed("example")
    lock.write_text("example==1.0")
    (environment / "bin/python").unlink()
    (environment / "bin/python").symlink_to(tmp_path / "python-that-was-removed")
    assert not install_python.is_installed("example")


def test_a_second_installation_waits_for_the_first(tmp_path):
    program = f"""
import pathlib, sys
sys.path.insert(0, {str(ROOT / "tools")!r})
from exclusive import wait_for_turn
with wait_for_turn(pathlib.Path({str(tmp_path / "install.lock")!r}), "installs Python tools"):
    print("its turn", flush=True)
    sys.stdin.read()
"""

    def start():
        command = [sys.executable, "-c", program]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with start() as first:
        assert first.stdout.readline() == "its turn\n"
        with start() as second:
            assert second.stdout.readline() == f"Waiting for process {first.pid}, which installs Python tools.\n"
            first.kill()
            assert second.stdout.readline() == "its turn\n"
            second.stdin.close()
