"""Turns results/learning.json into docs/learning.md and its figure.

python benchmarks/summary_learning.py
"""

import json
import statistics
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from harness import HERE, RESULTS
from scipy.stats import t as student
from summary_figures import DOCS, save
from summary_text import number, table

IMAGE = "learning_agents.png"
# Okabe & Ito (2008): told apart with any colour vision.
COLOURS = {
    "ippo": "#0072B2",
    "mappo": "#E69F00",
    "vdn": "#009E73",
    "qmix": "#CC79A7",
    "pqn_vdn": "#56B4E9",
    "iql": "#F0E442",
    "JaxMARL's IPPO": "#D55E00",
}
PEER = "JaxMARL's IPPO"

NOTE = """\
Each line is {seeds} trainings with the preset of that algorithm and environment, which
`kiloworlds train ALGORITHM ENVIRONMENT` takes by itself. *Start* and *end* are the mean returns of the
episodes that ended in the first and in the last fiftieth of the training, exploration included;
*greedy* is the mean return of {episodes} episodes with the most likely actions. In brackets are 95%
intervals over the seeds (Student's t, so wide for three). A return is the mean over agents; *of it*
says, of greedy episodes, what each kind of agents got, and which share of the coins that players
picked up were of their own colour. The switch riddle cannot be won in more than 74.1% of its episodes:
in the others three prisoners are not all called within six days (1 - 3 (2/3)^6 + 3 (1/3)^6). Small
Hanabi has 10 points; published agents of the full game train for billions of steps, these for what two
processor cores do in half an hour.{peer}"""
PEER_NOTE = """
*JaxMARL's IPPO* is `benchmarks/peers/jaxmarl_ippo.py`, JaxMARL's published scripts and settings on its
environments, for as many steps as our preset takes; on the particle worlds its episodes are 26 steps
long and ours 25, which makes its returns about 4% larger. Its share of battles won is that of
its training's last episodes."""


def parts_of(name: str) -> tuple[str, str, str]:
    """Who learns, where, and what else makes it a task of its own."""
    task, _, label = name.partition(", ")
    who, env = task.rsplit(" ", 1)
    return who, env, label


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and how far its 95% interval goes to either side."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("nan")
    error = statistics.stdev(values) / len(values) ** 0.5
    return mean, float(student.ppf(0.975, len(values) - 1)) * error


def interval_text(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean, around = mean_interval(known)
    digits = 2 if max(map(abs, known)) < 10 else 1
    if all(0 <= value <= 1 for value in known):
        digits = 3
    return f"{mean:.{digits}f} [{mean - around:.{digits}f}, {mean + around:.{digits}f}]"


def results_table(trainings: dict[str, Any]) -> str:
    rows = []
    for name in sorted(trainings, key=lambda one: (parts_of(one)[1], parts_of(one)[2])):
        record = trainings[name]
        who, env, label = parts_of(name)
        curve, greedy = record["curves"], record.get("greedy", {})
        wins = greedy.get("win_rate") or curve.get("win_rate", [[None]])[-1]
        rows.append(
            [
                env + (f" ({label})" if label else ""),
                who,
                f"{record['steps'] / 1e6:.3g} M",
                interval_text(curve["ep_rew_mean"][0]),
                interval_text(curve["ep_rew_mean"][-1]),
                interval_text(greedy["return"]) if greedy else "",
                interval_text(wins),
                details(greedy),
                number(record["seconds_all_seeds"]),
            ]
        )
    header = ("", "", "steps", "start", "end", "greedy", "win rate", "of it", "seconds, all seeds")
    return table(header, rows)


def details(greedy: dict[str, Any]) -> str:
    """What the mean return of all agents hides: that of each kind, and whose coins are taken."""
    kinds: dict[str, list[float]] = {}
    for agent, value in greedy.get("agents", {}).items():
        kinds.setdefault(agent.rpartition("_")[0], []).append(value)
    words = []
    if len(kinds) > 1:
        words = [f"{kind} {statistics.fmean(values):.1f}" for kind, values in kinds.items()]
    if "own_coins_share" in greedy:
        words.append(f"own coins {interval_text(greedy['own_coins_share'])}")
    return ", ".join(words)


def figure(trainings: dict[str, Any]) -> None:
    """A panel for each task: every algorithm's mean within its interval."""
    tasks: dict[tuple[str, str], dict[str, Any]] = {}
    for name, record in trainings.items():
        who, env, label = parts_of(name)
        tasks.setdefault((env, label), {})[who] = record
    columns = 3
    rows = -(-len(tasks) // columns)
    drawing, axes = plt.subplots(
        rows, columns, figsize=(3.7 * columns, 2.8 * rows), squeeze=False, sharex=False
    )
    shown: dict[str, Any] = {}
    for axis, ((env, label), records) in zip(axes.flat, tasks.items(), strict=False):
        wins = all("win_rate" in one["curves"] for one in records.values())
        # A perfect game of Hanabi is rare; what counts there is its points.
        by = "win_rate" if wins and not env.startswith("hanabi/") else None
        for who in (one for one in COLOURS if one in records):
            line = draw(axis, records[who]["curves"], by or "ep_rew_mean", COLOURS[who])
            shown.setdefault(who, line)
        axis.set_title(env + (f", {label}" if label else ""))
        axis.set_ylabel("win rate" if by else "return")
        axis.set_xlabel("environment steps (millions)")
        axis.grid(alpha=0.3)
        if by:
            axis.set_ylim(-0.02, 1.02)
    for axis in axes.flat[len(tasks) :]:
        axis.axis("off")
    drawing.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=7, frameon=False
    )
    save(drawing, IMAGE)


def draw(axis: Any, curve: dict[str, Any], name: str, colour: str) -> Any:
    steps, middle, around = [], [], []
    for step, values in zip(curve["step"], curve[name], strict=True):
        known = [value for value in values if value is not None]
        if known:
            mean, error = mean_interval(known)
            steps.append(step / 1e6)
            middle.append(mean)
            around.append(error)
    (line,) = axis.plot(steps, middle, color=colour, linewidth=1.6)
    low = [m - e for m, e in zip(middle, around, strict=True)]
    high = [m + e for m, e in zip(middle, around, strict=True)]
    axis.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    return line


def main() -> None:
    content = json.loads((RESULTS / "learning.json").read_text())
    trainings = content["trainings"]
    plt.rcParams.update({"axes.titlesize": 10, "font.size": 9, "axes.spines.top": False})
    plt.rcParams.update({"axes.spines.right": False})
    figure(trainings)
    seeds = sorted({record["seeds"] for record in trainings.values()})
    episodes = max(record.get("greedy_episodes", 0) for record in trainings.values())
    sources = sorted({(r["commit"], r["date"]) for r in trainings.values()}, key=lambda s: s[1])
    processors = {(r["machine"]["processor"], r["machine"]["cores"]) for r in trainings.values()}
    page = [
        "# What several agents learn",
        "Generated by `python benchmarks/summary_learning.py` from "
        "[`benchmarks/results/learning.json`](../benchmarks/results/learning.json), which "
        "`python benchmarks/learning.py` writes; edit those instead.",
        f"![](images/{IMAGE})",
        results_table(trainings),
        NOTE.format(
            seeds=" or ".join(map(str, seeds)),
            episodes=episodes,
            peer=PEER_NOTE if any(name.startswith(PEER) for name in trainings) else "",
        ),
        "Measured at "
        + ", ".join(f"{commit} ({date})" for commit, date in sources)
        + " on "
        + " and ".join(
            f"{cores} {'core' if cores == 1 else 'cores'} of {name}"
            for name, cores in sorted(processors)
        )
        + ".",
    ]
    path = DOCS / "learning.md"
    path.write_text("\n\n".join(page) + "\n")
    print(f"wrote {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
