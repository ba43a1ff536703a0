"""Fuzzes everything that reads input from outside: events, ai_secrets and targets.

    fuzz.py SECONDS_EACH
"""

import sys

import environment
from environment import ROOT
from step import exit_on_signals, run


def main():
    [seconds] = sys.argv[1:]
    environment.prepare()
    exit_on_signals()
    for target in ("event", "ai_secret", "targets"):
        corpus = ROOT / "fuzz/corpus" / target
        corpus.mkdir(parents=True, exist_ok=True)
        command = ["cargo", "fuzz", "run", "--sanitizer", "none", target, corpus, ROOT / "fuzz/seeds" / target]
        run(f"fuzz {target}", [*command, "--", f"-max_total_time={seconds}"], show="Done")


main()
