"""Whether presets still learn as results/learning.json says: a few, partly or whole, in a minute.

python benchmarks/learning_check.py [--only NAME ...]
"""

import argparse
import statistics
import sys
import time
from typing import NamedTuple

from harness import SOURCE, log

sys.path.insert(0, str(SOURCE))

from learning import known, measure
from learning_statistics import Change, change, curve_name, end_of, start_of
from learning_tasks import BY_NAME, score_of


class Check(NamedTuple):
    """A training that is made again: which, how much of it and with how many seeds."""

    name: str
    share: float
    seeds: int = 3


CHECKS = (
    Check("ppo CartPole-v1", 1.0),
    Check("ppo Taxi-v3", 1.0),
    Check("ppo Pendulum-v1", 0.3),
    Check("ippo mpe/simple_spread_v3", 0.06, seeds=2),
    Check("pqn_vdn mpe/simple_spread_v3", 0.2),
)


def check(which: Check) -> Change:
    """Trains again and compares: what final policies reach, or the curve so far."""
    task, kept = BY_NAME[which.name], known()[which.name]
    new = measure(task, which.seeds, which.share)
    curve = kept["curves"][curve_name(task)]
    learnt = statistics.fmean(end_of(curve)) - start_of(curve)
    if which.share == 1.0:
        score = score_of(task.env)
        return change(kept["greedy"][score], new["greedy"][score], learnt)
    part = len(new["curves"]["step"]) - 1
    then, now = curve[part], new["curves"][curve_name(task)][part]
    return change([value for value in then if value is not None], now, learnt)


def run(only: list[str]) -> int:
    """Checks, and tells; 1 if any has got worse."""
    worse = []
    for which in CHECKS:
        if which.name not in only:
            continue
        began = time.perf_counter()
        found = check(which)
        if found.word == "worse":
            worse.append(which.name)
        part = "" if which.share == 1.0 else f", the first {which.share:.0%}"
        log(
            f"{which.name}{part}: {found.mean:.4g}, between {found.low:.4g} and {found.high:.4g} "
            f"expected: {found.word} ({time.perf_counter() - began:.0f} s)"
        )
    if worse:
        log(f"learn worse than benchmarks/results/learning.json says: {', '.join(worse)}")
    return int(bool(worse))


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [each.name for each in CHECKS]
    parser.add_argument("--only", nargs="+", default=names, metavar="NAME", help=", ".join(names))
    only = parser.parse_args().only
    unknown = [name for name in only if name not in names]
    if unknown:
        parser.exit(2, f"{unknown[0]!r} is not among what is checked: {', '.join(names)}.\n")
    return run(only)


if __name__ == "__main__":
    sys.exit(main())
