"""Finds out from a record of round trips how many of them followed one another."""

from distance import Crossing


def sequence(crossings: list[Crossing]) -> list[list[str]]:
    """What was under way in the first round trip, the second, and so on.

    The number of a round trip is one more than the highest number among those that had ended when it began. Either it
    began in response to one of them, or the client computed for so long that it could not begin earlier.
    """
    rounds, ended = [], []
    for crossing in sorted((it for it in crossings if it.answered is not None), key=lambda it: it.answered):
        number = max((after for answered, after in ended if answered <= crossing.sent), default=0)
        rounds += [[]] * (number >= len(rounds))
        rounds[number] = [*rounds[number], crossing.what]
        ended.append((crossing.answered, number + 1))
    return rounds
