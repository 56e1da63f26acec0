"""Turns the newest results into docs/benchmarks.md and its figures.

    python benchmarks/summary.py

Takes the newest full result of each question; `--quick` takes quick ones, to see how a page looks.
"""

import argparse
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from harness import HERE, median_interval
from summary_evidence import autotune_section, evidence_section
from summary_figures import DOCS, save
from summary_multiagent import multiagent_figure, multiagent_section
from summary_pool import pool_section, simulators_section
from summary_survival import soak_section, survival_section
from summary_text import (
    absent_text,
    find,
    interval_text,
    newest,
    number,
    provenance,
    rate_text,
    ratio_text,
    seconds_text,
    table,
)

# Okabe & Ito (2008): told apart with any colour vision. Ours is always the first.
STYLES = {
    "kiloworlds": ("#0072B2", "o", "-"),
    "kiloworlds, 2 devices": ("#0072B2", "s", "--"),
    "kiloworlds step()": ("#56B4E9", "o", "-"),
    "kiloworlds sync": ("#56B4E9", "s", ":"),
    "gymnax": ("#D55E00", "D", "-"),
    "EnvPool": ("#E69F00", "^", "-"),
    "Gymnasium vectorised": ("#009E73", "P", "-"),
    "Gymnasium sync": ("#009E73", "v", ":"),
    "Gymnasium async": ("#009E73", "x", "--"),
    "C loop, 1 thread": ("#666666", "", "--"),
}

COUNTING = """\
**What counts.** One environment step is one action taken in one environment. There is no frame-skip
in these tasks. A call that only resets an environment (next-step autoreset in Gymnasium and EnvPool)
is not a step. Actions are random and fresh at every step. In *rollout* everything, the drawing of
actions included, runs inside one compiled program, and every step stores its observation, reward and
flags. In *step()* the caller hands over one batch of numpy actions per call (drawn beforehand) and
reads every observation, reward and flag that comes back. The two are different uses and are compared
within themselves unless said otherwise. Starting, warming up and compiling are not in the rates.

**How it is timed.** Each competitor runs in a process of its own and idles while another is timed. The
order turns from round to round. A rate is the median of the rounds; a ratio is the median of the
ratios within rounds, with its 95% bootstrap interval in brackets: more than 1 means kiloworlds is
faster."""


RATIOS_NOTE = """\
At the largest number of environments: against the fastest peer in the same use, and against EnvPool's
step(), the nearest thing EnvPool has to a compiled rollout."""

ENVS_NOTE = """\
*kiloworlds* is what `kiloworlds.make(id, num_envs)` gives with no other setting. *2 devices* presents
the cores as two JAX devices; *1 thread* sets `PJRT_NPROC=1`, which gives XLA one thread per device.
EnvPool runs synchronously with 2 threads. Gymnasium's Taxi is `Taxi-v4`, the same rules. Gymnasium
sync and kiloworlds sync, one environment after another in Python, stop at 1,024 environments;
Gymnasium async, a process each, at 16. The C loop (`benchmarks/reference/cartpole.c`, `cc -O3
-march=native -ffast-math`) is no peer: it shows how fast CartPole's arithmetic can go."""

SPEED_NOTE = """\
Environments × steps per update, {steps:,} steps. Both learn with four epochs of four minibatches,
learning rate 2.5e-4 falling to 0, discount 0.99, λ 0.95, clip 0.2, entropy 0.01, value 0.5, gradient
norm 0.5, and two separate networks of two tanh layers of 64 units. *PureJaxRL-style* is
`benchmarks/peers/purejaxrl_style.py`: PPO with the structure, libraries and published settings of
PureJaxRL, on gymnax.

*Solved* is the first time the mean return of the last 100 episodes reaches {solved:.0f}; *for good*
is the time after which it stays there to the end. Both are medians over the seeds that got there, with
their number, and include compilation. *Last return* is the mean of the last fiftieth of the training:
median over seeds, with its interval."""

LOOPS_NOTE = """\
{num_envs} environments × {num_steps} steps, {total_steps:,} steps, the same settings, SB3 and SBX on
their default vector of Gymnasium environments. These two do not clip the value loss; kiloworlds does.
SB3 is timed with PyTorch's default threads and with one (`OMP_NUM_THREADS=1`)."""

SEEDS_NOTE = """\
Rates are from 32 trainings of {steps:,} steps each. The wall-clock column is compilation once plus 16
million steps at that rate; the last column compares it with one after another, which compiles once
too."""

PROCESS_NOTE = """\
`kiloworlds train ppo CartPole-v1` with its preset: seconds from the start of the process, as seen from
outside (imports, compilation, files and figure included)."""

IMPORT_NOTE = """\
Seconds to import, in fresh processes. `import kiloworlds` loads no JAX until a name is used."""


# ------------------------------------------------------------------------------------ environments


def envs_section(name: str, result: dict[str, Any]) -> str:
    cells = result["cells"]
    every_record = [record for cell in cells for record in cell["records"]]
    parts = ["## Environment steps per second", "![](images/benchmark_envs.png)"]
    parts += [
        RATIOS_NOTE,
        envs_ratios(cells),
    ]
    for env in dict.fromkeys(cell["env"] for cell in cells):
        own = [cell for cell in cells if cell["env"] == env]
        sizes = [cell["num_envs"] for cell in own]
        names = list(dict.fromkeys(r["name"] for cell in own for r in cell["records"]))
        rows = []
        for competitor in names:
            found = [find(cell["records"], competitor) for cell in own]
            if any(found):
                rates = [rate_text(record["rate"]) if record else "–" for record in found]
                group = next(record["group"] for record in found if record)
                rows.append([competitor, group, *rates])
        rows.sort(key=lambda row: row[1])
        header = ["", "use", *(f"{size:,} environments" for size in sizes)]
        absent = absent_text(r for cell in own[:1] for r in cell["records"])
        parts += [f"### {env}", table(header, rows) + absent]
    parts += [
        ENVS_NOTE,
        provenance(name, result, every_record),
    ]
    return "\n\n".join(parts)


def envs_ratios(cells: Sequence[dict[str, Any]]) -> str:
    rows = []
    for env in dict.fromkeys(cell["env"] for cell in cells):
        cell = max((c for c in cells if c["env"] == env), key=lambda c: c["num_envs"])
        for name, group in (("kiloworlds", "rollout"), ("kiloworlds step()", "step")):
            ours = find(cell["records"], name)
            if ours is None:
                continue
            peers = [
                record
                for record in cell["records"]
                if record["group"] == group
                and "absent" not in record
                and not record["name"].startswith(("kiloworlds", "C loop"))
            ]
            best = max(peers, key=lambda record: record["rate"], default=None)
            envpool = ours["ratios"].get("EnvPool")
            rows.append(
                [
                    env,
                    group,
                    f"{cell['num_envs']:,}",
                    rate_text(ours["rate"]),
                    "–" if best is None else f"{best['name']}, {rate_text(best['rate'])}",
                    "–" if best is None else ratio_text(ours["ratios"][best["name"]]),
                    "–" if envpool is None else ratio_text(envpool),
                ]
            )
    header = ("", "use", "environments", "kiloworlds", "fastest peer", "ratio", "to EnvPool")
    return table(header, rows)


def envs_figure(result: dict[str, Any]) -> None:
    cells = result["cells"]
    envs = list(dict.fromkeys(cell["env"] for cell in cells))
    columns = min(3, len(envs))
    rows = -(-len(envs) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.4 * columns, 2.9 * rows + 1.1),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axis in axes.flat[len(envs) :]:
        axis.set_visible(False)
    handles: dict[str, Any] = {}
    for axis, env in zip(axes.flat, envs, strict=False):
        for competitor, (colour, marker, line) in STYLES.items():
            points = [
                (cell["num_envs"], record["rate"], record["rate_interval"])
                for cell in cells
                if cell["env"] == env and (record := find(cell["records"], competitor))
            ]
            if not points:
                continue
            sizes, rates, intervals = zip(*points, strict=True)
            (handle,) = axis.plot(
                sizes, rates, color=colour, marker=marker, linestyle=line, markersize=5
            )
            low, high = zip(*intervals, strict=True)
            axis.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
            handles[competitor] = handle
        axis.set(xscale="log", yscale="log", title=env)
        sizes = sorted({cell["num_envs"] for cell in cells})
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
        if axis.get_subplotspec().is_last_row():
            axis.set_xlabel("environments")
        axis.grid(alpha=0.3)
    figure.supylabel("environment steps per second", fontsize=10)
    labels = {
        "kiloworlds": "kiloworlds, compiled rollout",
        "kiloworlds, 2 devices": "the same on 2 devices",
        "gymnax": "gymnax, compiled rollout",
    }
    figure.legend(
        handles.values(),
        [labels.get(competitor, competitor) for competitor in handles],
        loc="outside lower center",
        ncols=min(columns, len(handles)),
        frameon=False,
        fontsize=9,
    )
    save(figure, "benchmark_envs.png")


# --------------------------------------------------------------------------------------- training


def training_section(name: str, result: dict[str, Any]) -> str:
    every_record: list[dict[str, Any]] = []
    parts = ["## PPO on CartPole-v1", "![](images/benchmark_training.png)"]
    rows = []
    for cell in result.get("speed", []):
        every_record += cell["records"]
        title = "preset" if cell.get("preset") else f"{cell['num_envs']} × {cell['num_steps']}"
        ours = find(cell["records"], "kiloworlds")
        for record in cell["records"]:
            if "absent" not in record:
                rows.append(training_row(title, record, ours))
    if rows:
        parts += [
            "### One run, the same settings",
            SPEED_NOTE.format(steps=training_steps(result["speed"]), solved=result["solved"]),
            table(TRAINING_HEADER, rows) + absent_text(every_record),
        ]
    if "loops" in result:
        cell = result["loops"]
        every_record += cell["records"]
        ours = find(cell["records"], "kiloworlds")
        present = [r for r in cell["records"] if "absent" not in r]
        parts += [
            "### Against trainers that step Python environments",
            LOOPS_NOTE.format(**cell),
            table(TRAINING_HEADER, [training_row("8 × 128", r, ours) for r in present])
            + absent_text(cell["records"]),
        ]
    if "seeds" in result:
        parts += ["### 32 seeds", seeds_table(result["seeds"])]
        every_record += [record for cell in result["seeds"] for record in cell["records"]]
    if "process" in result:
        parts += ["### The whole process", process_table(result["process"])]
    parts.append(provenance(name, result, every_record))
    return "\n\n".join(parts)


TRAINING_HEADER = (
    "shape",
    "",
    "steps/s",
    "kiloworlds / this",
    "compile, s",
    "solved after steps",
    "solved, s",
    "for good, s",
    "last return",
)


def training_steps(cells: Sequence[dict[str, Any]]) -> int:
    return next(cell["total_steps"] for cell in cells if "total_steps" in cell)


def training_row(title: str, record: dict[str, Any], ours: dict[str, Any] | None) -> list[str]:
    ratio = None if ours is None else ours["ratios"].get(record["name"])
    rounds = record["rounds"]
    return [
        title,
        record["name"],
        rate_text(record["rate"]),
        "" if ratio is None else ratio_text(ratio),
        f"{record['compile_seconds']:.1f}",
        steps_text([curve["first_solved"] for r in rounds for curve in r["curves"]]),
        seconds_text(solved_seconds(record, "first_solved")),
        seconds_text(solved_seconds(record, "stays_solved")),
        last_return(record),
    ]


def steps_text(values: Sequence[int | None]) -> str:
    reached = [value for value in values if value is not None]
    return rate_text(statistics.median(reached)) if reached else "–"


def solved_seconds(record: dict[str, Any], moment: str) -> list[float | None]:
    """Seconds with compilation until solved, per seed; None where it was not."""
    return [
        None
        if curve[moment] is None
        else record["compile_seconds"] + curve[moment] * r["seconds"] / r["steps"]
        for r in record["rounds"]
        for curve in r["curves"]
    ]


def last_return(record: dict[str, Any]) -> str:
    """Median over seeds of the mean return in the last part of the curve, with its interval."""
    values = [
        next((value for value in reversed(curve["returns"]) if value is not None), None)
        for r in record["rounds"]
        for curve in r["curves"]
    ]
    reached = [value for value in values if value is not None]
    if not reached:
        return "–"
    middle, (low, high) = median_interval(reached)
    return f"{middle:.0f} [{low:.0f}, {high:.0f}]"


def seeds_table(cells: Sequence[dict[str, Any]]) -> str:
    rows = []
    for cell in cells:
        single = find(cell["records"], "one after another")
        for record in cell["records"]:
            if "absent" in record or single is None:
                continue
            # In one process: compiled once, then 32 times half a million steps.
            wall = record["compile_seconds"] + 32 * 500_000 / record["rate"]
            single_wall = single["compile_seconds"] + 32 * 500_000 / single["rate"]
            rows.append(
                [
                    cell["shape"],
                    record["name"],
                    rate_text(record["rate"]),
                    "" if record is single else ratio_text(record["ratios"]["one after another"]),
                    f"{record['compile_seconds']:.1f}",
                    number(wall),
                    "" if record is single else number(single_wall / wall),
                ]
            )
    header = (
        "shape",
        "",
        "steps/s, all seeds",
        "faster than one after another",
        "compile, s",
        "32 × 500 k steps, s",
        "ratio with compilation",
    )
    note = SEEDS_NOTE.format(steps=cells[0]["total_steps"])
    return table(header, rows) + "\n\n" + note


def process_table(result: dict[str, Any]) -> str:
    rows = []
    for kind, title in (
        ("cold", "empty compilation cache"),
        ("warm", "filled compilation cache"),
    ):
        cells = [title]
        for moment in ("solved", "stays_solved", "total"):
            value = result.get(f"{kind}_{moment}_seconds")
            if value is None:
                cells.append("–")
                continue
            low, high = value["interval"]
            text = f"{value['median']:.1f} [{low:.1f}, {high:.1f}]"
            if value["reached"] < value["of"]:
                text += f" ({value['reached']} of {value['of']})"
            cells.append(text)
        rows.append(cells)
    header = ("", "solved, s", "for good, s", "process ends, s")
    return PROCESS_NOTE + "\n\n" + table(header, rows)


def training_figure(result: dict[str, Any]) -> None:
    cells = [cell for cell in result.get("speed", []) if not cell.get("preset")]
    if not cells:
        return
    figure, axes = plt.subplots(1, len(cells) + 1, figsize=(3.5 * (len(cells) + 1), 3.5))
    colours = {"kiloworlds": "#0072B2", "PureJaxRL-style": "#D55E00", "SB3": "#E69F00"}
    colours["SBX"] = "#009E73"
    for axis, cell in zip(axes, cells, strict=False):
        for name in ("kiloworlds", "PureJaxRL-style"):
            record = find(cell["records"], name)
            if record:
                plot_curves(axis, record, colours[name], by_seconds=False)
        axis.set(
            title=f"{cell['num_envs']} environments × {cell['num_steps']} steps",
            xlabel="environment steps (thousands)",
            ylim=(0, 515),
        )
    axis = axes[-1]
    records = [record for cell in cells[:1] for record in cell["records"]]
    records += result.get("loops", {}).get("records", [])
    drawn = set()
    for name, colour in colours.items():
        record = find(records, name)
        if record and name not in drawn:
            drawn.add(name)
            plot_curves(axis, record, colour, by_seconds=True)
    axis.set(
        title="by the clock (SB3 and SBX: 8 × 128)",
        xlabel="seconds, compilation included",
        xscale="log",
        ylim=(0, 515),
    )
    low, high = axis.get_xlim()
    marks = [m * 10**power for power in range(-1, 5) for m in (1, 2, 5)]
    axis.set_xticks([mark for mark in marks if low <= mark <= high])
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    for axis in axes:
        axis.axhline(result["solved"], color="#888888", linewidth=0.8, linestyle=":")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean episode return")
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save(figure, "benchmark_training.png")


def plot_curves(axis: Any, record: dict[str, Any], colour: str, by_seconds: bool) -> None:
    """The mean over seeds, with the range between the second lowest and highest quarters."""
    curves = [curve for r in record["rounds"] for curve in r["curves"]]
    rate = record["rate"]
    steps, middle, low, high = [], [], [], []
    for index, step in enumerate(curves[0]["steps"]):
        values = [c["returns"][index] for c in curves if c["returns"][index] is not None]
        if not values:
            continue
        quarters = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
        steps.append(step)
        middle.append(statistics.fmean(values))
        low.append(max(quarters[0], 0.0))
        high.append(min(quarters[2], 500.0))
    places = [record["compile_seconds"] + s / rate if by_seconds else s / 1000 for s in steps]
    name = record["name"]
    axis.plot(places, middle, color=colour, label=name, linewidth=1.6)
    axis.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)


# ----------------------------------------------------------------------------------------- memory


def memory_section(name: str, result: dict[str, Any]) -> str:
    def rows(records: Iterable[dict[str, Any]], digits: int) -> list[list[str]]:
        return [
            [r["name"], f"{r['median']:.{digits}f}", interval_text(r["interval"], digits)]
            for r in records
            if "absent" not in r
        ]

    return "\n\n".join(
        [
            "## Memory and import",
            f"Peak resident set of a fresh process that makes {result['num_envs']:,} CartPoles, resets "
            "them and takes 20 steps; interpreter and libraries included.",
            table(("", "MB", "95% interval"), rows(result["memory"], 0))
            + absent_text(result["memory"]),
            IMPORT_NOTE,
            table(("", "s", "95% interval"), rows(result["imports"], 3)),
            provenance(name, result, []),
        ]
    )


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="use the quick results")
    options = parser.parse_args()
    plt.rcParams.update({"axes.titlesize": 10, "font.size": 9, "axes.spines.top": False})
    plt.rcParams.update({"axes.spines.right": False})
    parts = ["# Benchmarks", "Generated by `python benchmarks/summary.py`; edit that instead."]
    if options.quick:
        parts.append("**Made from quick runs: these numbers only show that everything works.**")
    parts.append(COUNTING)
    for question, section, figure in (
        ("envs", envs_section, envs_figure),
        ("training", training_section, training_figure),
        ("multiagent", multiagent_section, multiagent_figure),
        ("pool", pool_section, None),
        ("simulators", simulators_section, None),
        ("survival", survival_section, None),
        ("soak", soak_section, None),
        ("evidence", evidence_section, None),
        ("autotune", autotune_section, None),
        ("memory", memory_section, None),
    ):
        found = newest(question, options.quick)
        if found is None:
            parts.append(f"(No result for `benchmarks/{question}.py` yet.)")
            continue
        parts.append(section(*found))
        if figure is not None:
            figure(found[1])
    page = DOCS / "benchmarks.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n")
    print(f"wrote {Path(page).relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
