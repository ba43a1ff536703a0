"""Many targets in one invocation, and what held it up: the function, the local servers that it calls, or others."""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import functions
from support.function import Function
from support.processes import children
from table import Row

REAL_SECRET = 65_536  # bytes that a secret in Secrets Manager can hold


def rotated_at_once(stack, count, name):
    """The seconds of one invocation with that many targets, and its peak memory."""
    text = json.dumps(functions.targets(stack, stack.braintrust, count))
    environment = stack.environment([], TARGETS="", TARGETS_SECRET_ID=stack.secret(text))
    servers = [os.getpid(), *children(os.getpid())]  # Braintrust and what stands before ministack; ministack
    handling = [_timed(server) for server in (stack.aws, stack.braintrust)]
    with Function(functions.BOOTSTRAP, environment, timeout=900) as function:
        began, servers_before, machine_before = time.perf_counter(), _cpu_seconds(servers), _machine_cpu_seconds()
        result, milliseconds = functions.rotate(function)
        seconds = milliseconds / 1000
        rotated = sum(target["outcome"] == "rotated" for target in result.body["targets"])
        if rotated != count:
            sys.exit(f"{rotated} of {count} targets were rotated")
        own, servers_used = _cpu_seconds([function.pid]), _cpu_seconds(servers) - servers_before
        others = max(0, _machine_cpu_seconds() - machine_before - own - servers_used)
        there_was = (time.perf_counter() - began) * os.cpu_count()
        shares = [f"{used / there_was:.0%}" for used in (own, servers_used, others)]
        remarks = [
            f"{milliseconds / count:.1f} ms a target",
            f"the local servers needed {statistics.mean(sum(handling, [])) * 1000:.0f} ms more for a call",
            "of the machine's CPU the function had {}, they {}, all else {}".format(*shares),
        ]
        if len(text) > REAL_SECRET:
            remarks.append(f"its list has {len(text) / 1024:,.0f} KB, a real secret at most {REAL_SECRET // 1024}")
        yield Row(name, "s", seconds, remark="; ".join(remarks))
        yield Row(f"peak memory, {name}", "MB", functions.peak_kilobytes(function) / 1024)


def _timed(server):
    """The seconds of each answer from now on, without the latency that the server was told to add."""
    took, handle = [], type(server).handle

    def timed(request):
        began = time.perf_counter()
        try:
            return handle(server, request)
        finally:
            took.append(time.perf_counter() - began)

    server.handle = timed
    return took


def _cpu_seconds(pids):
    """The CPU time that these processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _machine_cpu_seconds():
    """The CPU time that everything on this machine has used."""
    user, nice, system, _idle, _iowait, irq, softirq = Path("/proc/stat").read_text().split()[1:8]
    return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")
