"""Turns results/learning.json into docs/results and its figures.

python benchmarks/summary_learning.py
"""

import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from harness import HERE, SOURCE

sys.path.insert(0, str(SOURCE))

from learning import known
from learning_statistics import (
    BELOW,
    REACHED,
    WITHIN,
    Interval,
    Times,
    Verdict,
    curve_name,
    greedy,
    interval,
    level,
    row_interval,
    start_of,
    times,
    verdicts,
)
from learning_tasks import AGENTS, BY_NAME, PEER, SECTIONS, SOURCES, WHY, Task, score_of
from summary_figures import DOCS, IMAGES
from summary_text import number, table

import kiloworlds as kw
from kiloworlds.evaluation import axes as drawing
from kiloworlds.training.config import ALGORITHMS
from kiloworlds.training.presets import PRESETS, preset

PAGE = DOCS / "results" / "README.md"
COLUMNS = 3
BY_VALUES = ("iql", "vdn", "qmix", "pqn_vdn")
LOOKS = ("ippo", "mappo", PEER, "vdn", "qmix", "pqn_vdn", "iql")
"""Of which every algorithm has the same colour in all panels."""

HEAD = """\
# What the presets learn

Written by `scripts/results` from [`learning.json`](../../benchmarks/results/learning.json); edit
neither. `scripts/results --only "ppo CartPole-v1"` trains one again, `scripts/results` all of them
(hours), and `scripts/results --check` trains some of them in a minute or two and fails where one
has got worse than its interval allows, which CI does too. Every line is the preset, which
`kiloworlds train ALGORITHM ENVIRONMENT --num-seeds N` takes by itself."""

NOTE = """\
*Reached* is the mean over seeds of what their final policies get by their most likely actions, over
episodes that no training saw; in brackets its 95% interval: Student's t over seeds (the bootstrap's
intervals, which `compare` draws, are too narrow for three), and the standard error over episodes,
which all seeds share. It is a return, a mean over agents where there are several, or a share of
episodes won where that is said. *Best possible* is what no policy can exceed on average, by the
rules or by dynamic programming; a mean over finitely many episodes may lie above it by chance.
References are marked ✓ where the mean is not below them, ≈ where they are above the mean but within
its interval, ✗ where they are above all of it. *Steps* and *seconds to* are medians of the seeds
whose training return, exploration included, gets to that level and stays there for the next
fiftieth of the training; all seeds of a line train side by side on this machine, so that seconds
are for all of them at once, compilation left out. *Start* is the first fiftieth of the training in
which an episode ended. Curves are means of training returns with the same intervals as bands;
exploration keeps some of them below what the policies reach in the end. Numbers of steps differ
between ours and others', and are said of both."""

PEER_NOTE = f"""\
*{PEER}* is `benchmarks/peers/jaxmarl_ippo.py`: JaxMARL's published scripts and settings on its own
environments, for as many steps as our `ippo` takes, returns of the last tenth of training. On the
particle worlds its episodes are 26 steps long and ours 25, which makes its returns about 4% larger.
Ours are held against it by the same share of our training, whatever the algorithm."""

MEASURED_NOTE = """\
A + behind a commit: with changes that were committed only later. Seconds of {proportional} are in
proportion to steps: when its clock stood where was not kept. Many trainings ran on one thread beside
other work, which makes their seconds high. Taxi-v3 and Taxi-v4 are the same
world unless their options are used, which the presets do not."""


# ----------------------------------------------------------------------------------------- words


def words(value: float) -> str:
    """A score with as many digits as tell something."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if abs(value) < 100 else 1
    return f"{value:,.{min(digits, 4)}f}" if abs(value) < 1_000 else f"{value:,.0f}"


def interval_words(of: Interval) -> str:
    """The mean and the ends of its interval, to the digits that the interval leaves."""
    if math.isnan(of.around):
        return f"{words(of.mean)} (one seed)"
    if of.around == 0:
        return words(of.mean)
    digits = min(4, max(0, 1 - math.floor(math.log10(of.around))))
    mean, low, high = (f"{value:,.{digits}f}" for value in (of.mean, of.low, of.high))
    return f"{mean} [{low}, {high}]"


def steps_words(steps: float) -> str:
    return f"{steps / 1e6:.3g} M" if steps >= 1e6 else f"{steps / 1e3:.3g} k"


def verdict_words(one: Verdict) -> str:
    source = f"[{one.source}]" if one.source in SOURCES else one.source
    by = f" {one.by}" if one.by else ""
    return f"{one.mark} {words(one.value)} {source}{by}" + (f" ({one.note})" if one.note else "")


def time_words(found: Times, seeds: int) -> tuple[str, str]:
    if found.steps is None or found.seconds is None:
        return "never while exploring", ""
    some = "" if found.reached == seeds else f" ({found.reached} of {seeds} seeds)"
    return steps_words(found.steps) + some, number(found.seconds)


def details(played: dict[str, Any]) -> str:
    """What the mean return of all agents hides: that of each kind, and whose coins are taken."""
    kinds: dict[str, list[float]] = {}
    for agent, value in played.get("agents", {}).items():
        kinds.setdefault(agent.rpartition("_")[0], []).append(value)
    told = []
    if len(kinds) > 1:
        told = [f"{kind} {statistics.fmean(values):.1f}" for kind, values in kinds.items()]
    if "own_coins_share" in played:
        told.append(f"own coins {interval_words(interval(played['own_coins_share']))}")
    return ", ".join(told)


# ----------------------------------------------------------------------------------------- parts


def peer_of(task: Task, trainings: dict[str, Any]) -> dict[str, Any] | None:
    return trainings.get(f"{PEER} {task.env}")


def rows_of(tasks: Iterable[Task], trainings: dict[str, Any]) -> list[list[str]]:
    rows = []
    for task in tasks:
        record, peer = trainings[task.name], peer_of(task, trainings)
        goal = level(task, record, peer)
        steps, seconds = time_words(times(task, record, goal.value), record["seeds"])
        won = " won" if score_of(task.env) == "win_rate" else ""
        more = details(record["greedy"])
        rows.append(
            [
                f"{task.env}" + (f", {task.label}" if task.label else ""),
                task.algorithm,
                f"{record['seeds']} × {steps_words(record['steps'])}",
                words(start_of(record["curves"][curve_name(task)])),
                interval_words(greedy(task, record)) + won + (f"; {more}" if more else ""),
                "<br>".join(map(verdict_words, verdicts(task, record, peer))) or "none known",
                f"{words(goal.value)} ({goal.what})",
                steps,
                seconds,
            ]
        )
    return rows


HEADER = (
    *("environment", "algorithm", "seeds × steps", "start", "reached", "references"),
    *("level", "steps to it", "seconds to it"),
)


def summary(trainings: dict[str, Any]) -> str:
    """How many references are reached, which are not, and what is known of why."""
    marks: dict[str, int] = dict.fromkeys((REACHED, WITHIN, BELOW), 0)
    lines, unknown = [], []
    for task in (BY_NAME[name] for name in trainings if name in BY_NAME):
        record = trainings[task.name]
        found = verdicts(task, record, peer_of(task, trainings))
        if not found:
            unknown.append(task.name)
        for one in found:
            marks[one.mark] += 1
            if one.mark == BELOW:
                ours = interval_words(greedy(task, record))
                why = WHY.get((task.env, one.source), "")
                lines.append(
                    f"- {task.name}: {ours}, below {verdict_words(one)[2:]}. {why}".rstrip()
                )
    told = [
        f"Of {sum(marks.values())} references {marks[REACHED]} are reached ({REACHED}), "
        f"{marks[WITHIN]} are above the mean but within its interval ({WITHIN}): open, "
        f"and {marks[BELOW]} are above all of it ({BELOW})" + (":" if lines else ".")
    ]
    if lines:
        told.append("\n".join(lines))
    if unknown:
        told.append(f"For these no reference is known: {'; '.join(unknown)}.")
    return "\n\n".join(told)


def not_measured(trainings: dict[str, Any]) -> str:
    """Presets that nobody trained for this page."""
    lines = []
    for algorithm in ALGORITHMS:
        ids = dict.fromkeys([*PRESETS.get(algorithm, {}), *kw.list_envs()])
        missing = [
            env
            for env in ids
            if preset(algorithm, env) and f"{algorithm} {env}" not in _measured(trainings)
        ]
        if missing:
            lines.append(f"- `{algorithm}`, {len(missing)}: {', '.join(missing)}")
    return "\n".join(lines)


def _measured(trainings: dict[str, Any]) -> set[str]:
    """Names without labels."""
    return {name.partition(",")[0] for name in trainings}


def sources(trainings: dict[str, Any]) -> str:
    """Where and with what all was measured."""
    by_place: dict[tuple[str, ...], list[str]] = {}
    for name, record in trainings.items():
        facts, versions = record["machine"], record.get("versions", {})
        place = (
            f"{record['date']}, {record['commit']}",
            f"{facts['processor']}, {facts['cores']} core{'s' if facts['cores'] > 1 else ''}, "
            f"threads: {facts['threads']}",
            ", ".join(f"{package} {version}" for package, version in versions.items()),
        )
        by_place.setdefault(place, []).append(name)
    rows = [
        [when, machine, versions, "; ".join(names)]
        for (when, machine, versions), names in sorted(by_place.items())
    ]
    return table(("measured", "on", "with", "what"), rows)


# ---------------------------------------------------------------------------------------- figures


def figure(section: str, tasks: Sequence[Task], trainings: dict[str, Any]) -> str:
    """A panel for each environment and kind of algorithm, with every mean in its interval; the picture's
    name."""
    panels: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        by_values = "by values" if task.algorithm in BY_VALUES and _by_policies(task, tasks) else ""
        panels.setdefault((task.env, task.label or by_values), []).append(task)
    rows = -(-len(panels) // COLUMNS)
    page = drawing.figure_of(4.0 * COLUMNS, 2.7 * rows + 0.5)
    grid = page.subplots(rows, COLUMNS, squeeze=False)
    shown: dict[str, Any] = {}
    goals: list[Any] = []
    for axis, ((env, label), members) in zip(grid.flat, panels.items(), strict=False):
        peer = None if label == "by values" else trainings.get(f"{PEER} {env}")
        curves = [(task.algorithm, trainings[task.name]["curves"]) for task in members]
        curves += [(PEER, peer["curves"])] if peer else []
        for who, curve in curves:
            # A perfect game of Hanabi is rare; what counts there is its points.
            shown[who] = draw(axis, curve, curve_name(members[0]), look_number(who))
        goal = level(members[0], trainings[members[0].name], peer)
        if goal.what == "solved":
            goals.append(drawing.draw_goal(axis, goal.value))
        values = [found for _, curve in curves for found in means(curve, curve_name(members[0]))]
        values += [goal.value] if goal.what == "solved" else []
        around = 0.12 * (
            max(values) - min(values)
        )  # bands of few seeds may be wider than all curves
        axis.set_ylim(min(values) - around, max(values) + around)
        axis.set_xlim(left=0)
        axis.set_title(env + (f", {label}" if label else ""), fontsize=10, color=drawing.INK)
        axis.set_ylabel("share won" if score_of(env) == "win_rate" else "return", fontsize=9)
        axis.set_xlabel("million steps", fontsize=9)
        drawing.dress(axis)
    for axis in list(grid.flat)[len(panels) :]:
        axis.axis("off")
    ordered = sorted(shown, key=look_number)
    page.legend(
        [*(shown[who] for who in ordered), *goals[:1]],
        [*ordered, *(["the return that solves the task"] if goals else [])],
        loc="outside lower center",
        ncols=8,
        frameon=False,
    )
    name = f"results_{section.lower().replace(' ', '_')}.png"
    page.savefig(IMAGES / name)
    return name


def _by_policies(task: Task, tasks: Sequence[Task]) -> bool:
    """Whether others learn policies on its environment, mostly for other numbers of steps."""
    return any(one.env == task.env and one.algorithm not in BY_VALUES for one in tasks)


def look_number(who: str) -> int:
    return LOOKS.index(who) if who in LOOKS else 0


def means(curve: dict[str, Any], name: str) -> list[float]:
    return [found.mean for found in map(row_interval, curve[name]) if found is not None]


def draw(axis: Any, curve: dict[str, Any], name: str, number: int) -> Any:
    points = [
        (step / 1e6, found)
        for step, found in zip(curve["step"], map(row_interval, curve[name]), strict=True)
        if found is not None
    ]
    steps, look = [step for step, _ in points], drawing.look(number)
    every = max(1, len(points) // 6)
    (line,) = axis.plot(
        steps,
        [of.mean for _, of in points],
        color=look.color,
        linestyle=look.dashes,
        linewidth=1.6,
        marker=look.marker,
        markevery=(number % every, every),
        markersize=4,
    )
    ends = (0.0, 1.0) if name == "win_rate" else (-math.inf, math.inf)
    low = [max(of.low, ends[0]) for _, of in points]
    high = [min(of.high, ends[1]) for _, of in points]
    axis.fill_between(steps, low, high, color=look.color, alpha=0.14, linewidth=0)
    return line


# ------------------------------------------------------------------------------------------- page


def write() -> None:
    """Writes the page and its figures."""
    trainings = known()
    IMAGES.mkdir(parents=True, exist_ok=True)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    page = [HEAD, summary(trainings)]
    for section in SECTIONS:
        tasks = [task for task in BY_NAME.values() if task.section == section]
        tasks = [task for task in tasks if task.name in trainings]
        tasks.sort(key=lambda task: (section == AGENTS and task.env, task.label))
        if tasks:
            name = figure(section, tasks, trainings)
            page += [
                f"## {section}",
                f"![Learning curves](../images/{name})",
                table(HEADER, rows_of(tasks, trainings)),
            ]
    page += ["## How to read it", NOTE, PEER_NOTE]
    missing = not_measured(trainings)
    if missing:
        page += ["## Presets that were not measured", missing]
    proportional = [name for name, one in trainings.items() if "seconds_in_proportion" in one]
    note = MEASURED_NOTE.format(proportional="; ".join(proportional))
    page += ["## Measured", sources(trainings), note]
    page.append("\n".join(f"[{name}]: {where}" for name, where in SOURCES.items()))
    PAGE.write_text("\n\n".join(page) + "\n")
    print(f"wrote {PAGE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    write()
