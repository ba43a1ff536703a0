"""Describes the machine on which the figures were measured."""

import datetime
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path


def machine():
    """The properties by name, in the order in which they are shown."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    kilobytes = int(re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)[1])
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "CPU": f"{cpu[1] if cpu else 'unknown'}, {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{kilobytes / 2**20:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "rustc": rustc.removeprefix("rustc "),
        "Python": f"{sys.version.split()[0]}, boto3 {version('boto3')}",
        "date": datetime.date.today().isoformat(),
    }
