"""Measures many targets in one invocation, and how much of the CPU the function, the local servers and others used."""

import os
import statistics
import sys
import time
from pathlib import Path

import functions
from support.emulated_function import EmulatedFunction
from support.processes import children
from table import Row

LONG = 1  # second of CPU time; less is not precise enough, because the kernel counts in hundredths of a second


def rotated_at_once(stack, count, name):
    """Yields the duration of one invocation with `count` targets, its CPU time if that is long enough to be measured,
    and its peak memory."""
    environment = functions.listed_targets(stack, count)
    servers = [os.getpid(), *children(os.getpid())]  # this process has Braintrust and the server before ministack
    handling = [_timed(server) for server in (stack.aws, stack.braintrust)]
    with EmulatedFunction(functions.BOOTSTRAP, environment, timeout=900) as function:
        began, servers_before, machine_before = time.perf_counter(), _cpu_seconds(servers), _machine_cpu_seconds()
        result = functions.rotate(function)
        seconds = result.seconds - function.init_ms / 1000
        rotated = sum(target["outcome"] == "rotated" for target in result.body["targets"])
        # A long answer leaves out targets.
        rotated += result.body.get("left_out", {}).get("rotated", 0)
        if rotated != count:
            sys.exit(f"Only {rotated} of {count} targets were rotated")
        own, servers_used = _cpu_seconds([function.pid]), _cpu_seconds(servers) - servers_before
        others = max(0, _machine_cpu_seconds() - machine_before - own - servers_used)
        available = (time.perf_counter() - began) * os.cpu_count()
        shares = [f"{used / available:.0%}" for used in (own, servers_used, others)]
        remarks = [
            f"{seconds / count * 1000:.1f} ms a target",
            f"the local servers added {statistics.mean(sum(handling, [])) * 1000:.0f} ms more to a call",
            "the function used {} of the machine's CPU, the local servers {}, everything else {}".format(*shares),
        ]
        yield Row(name, "s", seconds, remark="; ".join(remarks))
        if own > LONG:
            yield Row(f"CPU time a target, {name}", "ms", own / count * 1000)
        yield Row(f"peak memory, {name}", "MB", functions.peak_kilobytes(function) / 1024)


def _timed(server):
    """Returns a list that gets the seconds of each answer from now on, without the latency that the server adds."""
    durations, handle = [], type(server).handle

    def timed(request):
        began = time.perf_counter()
        try:
            return handle(server, request)
        finally:
            durations.append(time.perf_counter() - began)

    server.handle = timed
    return durations


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
