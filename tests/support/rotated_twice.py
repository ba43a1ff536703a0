"""A target that has been rotated twice, so that it has previous credentials to restore."""

from .events import FORCED, ROLLBACK, scheduled_run
from .invocation_result import InvocationResult
from .kinds import USER_BASED
from .reports import outcome
from .world import World


class RotatedTwice:
    def __init__(self, world: World, kind: str, **fields):
        self.world = world
        self.ai_secret = world.new_ai_secret()
        overlap = {"overlap": "1h"} if kind in USER_BASED else {}
        self.target = world.new_staged_target(kind, self.ai_secret, **{**overlap, **fields})
        self.function = world.new_function(self.target)
        for event in (scheduled_run(), FORCED):
            assert outcome(self.function.invoke(event)) == "rotated"
        self.current = world.staged_value(self.target)
        self.previous = world.staged_value(self.target, "AWSPREVIOUS")

    def roll_back(self, **options) -> InvocationResult:
        return self.function.invoke({**ROLLBACK, **options})
