"""Goes through many cases at once: each spends most of its time waiting."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

# More would keep the processors so busy that runs miss their deadlines.
AT_ONCE = 12


def side_by_side(check: Callable[..., list[str]], *cases: Iterable, at_once: int = AT_ONCE):
    """Fails with everything that the checks found wrong."""
    with ThreadPoolExecutor(at_once) as pool:
        wrong = [line for found in pool.map(check, *cases) for line in found]
    assert not wrong, "\n".join(wrong)
