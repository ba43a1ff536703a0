"""Finds in a record of round trips how many of them had to follow one another."""

from distance import Crossing


def sequence(crossings: list[Crossing]) -> list[list[str]]:
    """What was under way in the first round trip, the second, and so on.

    A round trip is the one after the last of those that had ended when it began. It began in response to one of them,
    or, if the client computed for long, at least not before.
    """
    rounds, ended = [], []
    for crossing in sorted((it for it in crossings if it.answered is not None), key=lambda it: it.answered):
        number = max((after for answered, after in ended if answered <= crossing.sent), default=0)
        rounds += [[]] * (number >= len(rounds))
        rounds[number] = [*rounds[number], crossing.what]
        ended.append((crossing.answered, number + 1))
    return rounds
