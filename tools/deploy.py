"""Deploys the built function with `sam deploy`; without arguments, sam asks for the parameters.

    deploy.py [ARGUMENT OF SAM DEPLOY ...]
"""

import os
import sys

import environment

environment.prepare(aws_account=True)
os.execvp("sam", ["sam", "deploy", *(sys.argv[1:] or ["--guided"])])
