"""Stops the local stack that `make run` left running or is starting."""

import local_stack

print("Stopped." if local_stack.stop() else "Nothing is running.")
