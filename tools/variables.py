"""Checks the variables that `make` was given, and says what is wrong with them.

    variables.py GOALS GIVEN ORIGIN_OF_STACK NAME=VALUE ...

GOALS and GIVEN are lists separated by spaces: the goals, and the names of the variables on the command line. make would
silently ignore a variable whose name is misspelled, and a parameter of the template. It would not say which goal is
meant by a misspelled one.
"""

# Whatever Python is found runs this file, so older versions must be able to parse it.
import difflib
import os
import re
import sys

ALWAYS = ["PYTHON"]
OF_GOAL = {
    "run": ["KIND", "TRIGGER", "PROJECT", "END_TO_END"],
    "invoke": ["EVENT"],
    "test": ["T"],
    "build": ["ARCH"],
    "status": ["STACK", "TARGETS", "JSON"],
    "doctor": ["STACK", "TARGETS", "JSON"],
    "inventory": ["STACK", "JSON"],
    "rotate": ["STACK", "TARGETS", "FORCE", "DRY_RUN", "JSON"],
    "rollback": ["STACK", "TARGETS", "DRY_RUN", "REACTIVATE", "JSON"],
    "revoke": ["STACK", "TARGETS", "DRY_RUN", "FORCE", "API_KEY", "YES", "JSON"],
    "break": ["WHAT"],
    "deploy": ["ARGS", "ARCH", "LOCAL"],
    "fuzz": ["FUZZ_SECONDS"],
    "sbom": ["ARCH"],
    "reproducible": ["ARCH"],
}
VALUES = {
    "KIND": ["temporary", "access_key", "short_term_api_key", "long_term_api_key"],
    "TRIGGER": ["schedule", "rotation"],
    "ARCH": ["x86_64", "arm64"],
    "END_TO_END": ["true"],
    "FORCE": ["true"],
    "JSON": ["true"],
    "DRY_RUN": ["true"],
    "REACTIVATE": ["true"],
    "API_KEY": ["true"],
    "YES": ["true"],
    "LOCAL": ["true"],
}
MAY_BE_EMPTY = ["END_TO_END", "FORCE", "JSON", "DRY_RUN", "REACTIVATE", "API_KEY", "YES", "LOCAL"]


MAKEFILE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "Makefile")


def unknown_goals(goals):
    with open(MAKEFILE) as makefile:
        known = ["help"] + re.findall(r"^([a-z-]+):.*## ", makefile.read(), re.MULTILINE)
    for goal in goals:
        # What has a dot or a slash is a file, which a rule may make.
        if goal not in known and re.match(r"[\w-]+$", goal):
            meant = difflib.get_close_matches(goal.lower(), known, 1, 0.7)
            nearest = "Did you mean make {}? ".format(meant[0]) if meant else ""
            yield "There is no goal {}. {}To list all goals: make".format(goal, nearest)


def problems(goals, given, origin_of_stack, values):
    unknown_ones = list(unknown_goals(goals))
    if unknown_ones:
        return unknown_ones
    return wrong_variables(goals, given, origin_of_stack, values)


def wrong_variables(goals, given, origin_of_stack, values):
    command = " ".join(["make", *goals])
    accepted = [name for goal in goals for name in OF_GOAL.get(goal, [])] + ALWAYS
    unknown = [name for name in given if name not in accepted]
    if unknown:
        yield "{} does not accept {}. It accepts {}.".format(command, ", ".join(unknown), ", ".join(accepted))
    if unknown and "deploy" in goals:
        yield "Without ARGS, it asks six questions; ARGS='--config deploy/<stack>.yaml' takes the parameters from that file."
    if "STACK" in unknown and {"break", "mend", "stop"} & set(goals):
        yield "It works only on what `make run` left running."
    if "STACK" in accepted and origin_of_stack.startswith("environment"):
        yield "Give STACK after make, not in the environment: {} STACK=…".format(command)
    for name, value in values.items():
        allowed = VALUES[name] + ([""] if name in MAY_BE_EMPTY else [])
        if name in accepted and value not in allowed:
            yield "{}={} is not accepted. Accepted: {}.".format(name, value, ", ".join(VALUES[name]))


def main():
    goals, given, origin_of_stack, *values = sys.argv[1:]
    values = dict(value.split("=", 1) for value in values)
    found = list(problems(goals.split(), given.split(), origin_of_stack, values))
    if found:
        sys.exit(" ".join(found).rstrip("."))  # make itself ends the sentence


main()
