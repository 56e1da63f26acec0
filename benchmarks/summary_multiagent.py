"""The section of docs/benchmarks.md on several agents: rates of environments, trainings."""

import statistics
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from harness import median_interval
from summary_figures import save
from summary_text import (
    absent_text,
    find,
    number,
    provenance,
    rate_text,
    ratio_text,
    table,
)

OURS, THEIRS = "kiloworlds", "JaxMARL"
ONE_THREAD = ", 1 thread"
COLOURS = {OURS: "#0072B2", THEIRS: "#D55E00"}
IMAGE = "benchmark_multiagent.png"

ENVS_NOTE = """\
An environment step is one action of every agent. Actions are fresh at every step and drawn among the
legal ones inside the compiled program; both sides reset by themselves where an episode ends. Both run
as they come, and with XLA kept to one thread (`PJRT_NPROC=1`); *2 devices* presents the cores as two
JAX devices. The first ratio compares the fastest of each at the number of environments that suits
JaxMARL best, in turn; *each at its best* divides the highest rates at any number of environments.
*As they come* and *1 thread* are at JaxMARL's number again, with the same threads for both."""

TRAINING_NOTE = """\
Independent PPO in JaxMARL's published settings, {steps} environment steps: on simple_spread 16
environments × 128 steps, two networks of two tanh layers of 64 units, learning rate 2.5e-4; on SMAX 3m
128 × 128, a GRU of 128 between relu layers, learning rate 0.004, clip 0.05; four epochs of four
minibatches in both, one policy for all agents, and a learning rate that falls to 0. JaxMARL's package
has no training scripts: *JaxMARL's IPPO* is `benchmarks/peers/jaxmarl_ippo.py`, which computes what
theirs do on their environments. *Training* is compilation and the whole training. A return is the mean
over agents, of the first and the last fiftieth of the training: medians over {seeds} seeds, with the
interval for the last. JaxMARL's episodes of simple_spread are 26 steps long, PettingZoo's and ours 25;
theirs take the end of time for an end of the task, ours sees beyond it.

How much faster it could be: XLA's matrix products reach 55 to 75 GFLOP/s on a core of this machine. In
its four epochs an update of simple_spread takes 1.6 GFLOP per 2,048 steps and one of 3m 190 GFLOP per
16,384, so that both cores together, doing nothing else, would learn from at most 170 k and 11 k steps/s:
3.6 and 2.4 times what JaxMARL's IPPO reaches here."""


def multiagent_section(name: str, result: dict[str, Any]) -> str:
    """Tables of the environments and trainings that the result holds."""
    cells = result["cells"]
    parts = ["## Several agents", f"![](images/{IMAGE})"]
    rollouts = [cell for cell in cells if cell["question"] == "envs"]
    if rollouts:
        parts += ["### Environment steps per second, against JaxMARL", _headline(rollouts)]
        parts.append(ENVS_NOTE)
        for env, own in _by_env(rollouts).items():
            records = [record for cell in own for record in cell["records"]]
            parts += [f"#### {env}", _rates(own) + absent_text(records)]
    trainings = [cell for cell in cells if cell["question"] == "training"]
    if trainings:
        steps = " and ".join(dict.fromkeys(f"{cell['total_steps']:,}" for cell in trainings))
        records = [record for cell in trainings for record in cell["records"]]
        seeds = max((len(r["rounds"]) for r in records if "absent" not in r), default=0)
        parts += ["### Training, against JaxMARL", _trainings(trainings) + absent_text(records)]
        parts.append(TRAINING_NOTE.format(steps=steps, seeds=seeds))
    every_record = [record for cell in cells for record in cell["records"]]
    return "\n\n".join([*parts, provenance(name, result, every_record)])


def _by_env(cells: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The cells of each environment, by size."""
    ordered = sorted(cells, key=lambda cell: cell["num_envs"])
    names = dict.fromkeys(cell["env"] for cell in cells)
    return {env: [cell for cell in ordered if cell["env"] == env] for env in names}


def _fastest(cell: dict[str, Any], who: str) -> dict[str, Any] | None:
    """The fastest of the competitors of a cell that are `who`."""
    present = [r for r in cell["records"] if r["name"].startswith(who) and "absent" not in r]
    return max(present, key=lambda record: record["rate"], default=None)


def _their_best(cells: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], Any, Any] | None:
    """The cell in which JaxMARL is fastest, with the fastest of ours and of theirs in it."""
    found = []
    for cell in cells:
        ours, theirs = _fastest(cell, OURS), _fastest(cell, THEIRS)
        if ours and theirs:
            found.append((cell, ours, theirs))
    return max(found, key=lambda one: one[2]["rate"], default=None)


# ------------------------------------------------------------------------------------ environments


def _headline(cells: Sequence[dict[str, Any]]) -> str:
    rows = []
    for env, own in _by_env(cells).items():
        best = _their_best(own)
        if best is None:
            continue
        cell, ours, theirs = best

        def alike(suffix: str, cell=cell) -> str:
            one, other = find(cell["records"], OURS + suffix), THEIRS + suffix
            return ratio_text(one["ratios"][other]) if one and other in one["ratios"] else "–"

        highest = [
            max(record["rate"] for c in own if (record := _fastest(c, who)))
            for who in (OURS, THEIRS)
        ]
        plain = [find(cell["records"], who) for who in (OURS, THEIRS)]
        compiled = [f"{record['compile_seconds']:.1f}" if record else "–" for record in plain]
        rows.append(
            [
                env,
                f"{cell['num_envs']:,}",
                rate_text(ours["rate"]),
                rate_text(theirs["rate"]),
                ratio_text(ours["ratios"][theirs["name"]]),
                alike(""),
                alike(ONE_THREAD),
                f"{rate_text(highest[0])} / {rate_text(highest[1])} = "
                f"{number(highest[0] / highest[1])}",
                " / ".join(compiled),
            ]
        )
    header = (
        "",
        "environments",
        OURS,
        THEIRS,
        "ratio",
        "as they come",
        "1 thread",
        "each at its best",
        "compile, s",
    )
    return table(header, rows)


def _rates(cells: Sequence[dict[str, Any]]) -> str:
    rows = []
    for competitor in dict.fromkeys(r["name"] for cell in cells for r in cell["records"]):
        found = [find(cell["records"], competitor) for cell in cells]
        compiled = [record["compile_seconds"] for record in found if record]
        if compiled:
            rates = [rate_text(record["rate"]) if record else "–" for record in found]
            rows.append([competitor, *rates, f"{statistics.median(compiled):.1f}"])
    sizes = [f"{cell['num_envs']:,} environments" for cell in cells]
    return table(("", *sizes, "compile, s"), rows)


# --------------------------------------------------------------------------------------- trainings


def _trainings(cells: Sequence[dict[str, Any]]) -> str:
    rows = []
    for cell in cells:
        ours = find(cell["records"], OURS)
        for record in cell["records"]:
            if "absent" in record:
                continue
            ratio = None if ours is None else ours["ratios"].get(record["name"])
            curves = _curves(record)
            whole = [record["compile_seconds"] + r["seconds"] for r in record["rounds"]]
            rows.append(
                [
                    cell["env"],
                    record["name"],
                    rate_text(record["rate"]),
                    "" if ratio is None else ratio_text(ratio),
                    f"{record['compile_seconds']:.1f}",
                    number(statistics.median(whole)),
                    _ends(curves, "returns", 2),
                    _ends(curves, "win_rate", 3) if cell["env"].startswith("smax") else "",
                ]
            )
    header = (
        "",
        "",
        "steps/s",
        "kiloworlds / this",
        "compile, s",
        "training, s",
        "return",
        "win rate",
    )
    return table(header, rows)


def _curves(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [curve for r in record["rounds"] for curve in r["curves"]]


def _ends(curves: Sequence[dict[str, Any]], name: str, digits: int) -> str:
    """The first value of the curves and the last: medians, with the interval of the last."""
    known = [[value for value in curve.get(name, ()) if value is not None] for curve in curves]
    known = [values for values in known if values]
    if not known:
        return "–"
    first = statistics.median(values[0] for values in known)
    last, (low, high) = median_interval([values[-1] for values in known])
    return f"{first:.{digits}f} to {last:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


# ------------------------------------------------------------------------------------------ figure


def multiagent_figure(result: dict[str, Any]) -> None:
    """Ratios of the environments, and the learning curves."""
    rollouts = [cell for cell in result["cells"] if cell["question"] == "envs"]
    panels: list[tuple[dict[str, Any], str]] = []
    for cell in result["cells"]:
        if cell["question"] == "training":
            panels.append((cell, "returns"))
            if _has_wins(cell):
                panels.append((cell, "win_rate"))
    count = bool(rollouts) + len(panels)
    if not count:
        return
    figure, axes = plt.subplots(1, count, figsize=(3.8 * count, 3.3), squeeze=False)
    remaining = list(axes[0])
    if rollouts:
        _draw_rates(remaining.pop(0), rollouts)
    for axis, (cell, name) in zip(remaining, panels, strict=True):
        for who in (THEIRS, OURS):
            record = _fastest(cell, who)
            if record:
                _draw_curve(axis, _curves(record), name, COLOURS[who], who)
        what = {"returns": "mean return", "win_rate": "win rate"}[name]
        axis.set(title=f"{cell['env']}: {what}", xlabel="environment steps (thousands)")
        axis.grid(alpha=0.3)
    axes[0][-1].legend(frameon=False)
    save(figure, IMAGE)


def _has_wins(cell: dict[str, Any]) -> bool:
    """Whether any battle was won in the trainings, so that there is a win rate to show."""
    records = [record for record in cell["records"] if "absent" not in record]
    return any(any(curve.get("win_rate", ())) for one in records for curve in _curves(one))


def _draw_rates(axis: Any, cells: Sequence[dict[str, Any]]) -> None:
    names = []
    for place, (env, own) in enumerate(reversed(_by_env(cells).items())):
        names.append(env)
        best = _their_best(own)
        if best is None:
            continue
        for offset, record, who in ((0.2, best[1], OURS), (-0.2, best[2], THEIRS)):
            axis.barh(place + offset, record["rate"], 0.38, color=COLOURS[who])
            axis.text(record["rate"] * 1.1, place + offset, rate_text(record["rate"]), va="center")
    axis.set(xscale="log", title="environment steps per second", yticks=range(len(names)))
    axis.set_yticklabels(names)
    axis.set_xlim(right=axis.get_xlim()[1] * 8)  # room for the numbers
    axis.grid(alpha=0.3, axis="x")


def _draw_curve(
    axis: Any, curves: Sequence[dict[str, Any]], name: str, colour: str, label: str
) -> None:
    """The mean over seeds, within the range of all."""
    steps, middle, low, high = [], [], [], []
    for index, step in enumerate(curves[0]["steps"]):
        values = [curve[name][index] for curve in curves if curve.get(name)]
        values = [value for value in values if value is not None]
        if values:
            steps.append(step / 1000)
            middle.append(statistics.fmean(values))
            low.append(min(values))
            high.append(max(values))
    axis.plot(steps, middle, color=colour, label=label, linewidth=1.6)
    axis.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
