"""The command lines that the tools suggest."""


def command_for(stack):
    """Returns a function that returns the command line of a goal, for a deployed stack if `stack` names one."""

    def command(goal, **variables):
        given = {"STACK": stack, **variables} if stack else variables
        return " ".join(["make", goal, *(f"{name}={value}" for name, value in given.items())])

    return command
