"""The command lines that the tools suggest."""


def command_for(stack):
    """Returns what gives the command lines for a deployed stack, if `stack` names one, or for the local stack."""
    return Commands(stack)


class Commands:
    def __init__(self, stack):
        self.stack = stack

    def __call__(self, goal, **variables):
        given = {"STACK": self.stack, **variables} if self.stack else variables
        return " ".join(["make", goal, *(f"{name}={value}" for name, value in given.items())])

    def rotate_secret(self, target):
        """Has Secrets Manager rotate a target. The AWS CLI would look for the local stack's secret in AWS."""
        if not self.stack:
            return f"make run KIND={target['kind']} TRIGGER=rotation"
        return f"aws secretsmanager rotate-secret --secret-id {target.get('secret_id', '<secret>')}"
