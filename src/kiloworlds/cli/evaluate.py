"""`kiloworlds eval`: measures a trained agent's return."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.text import Text

from kiloworlds.cli import options
from kiloworlds.core import devices
from kiloworlds.core.checks import require_count
from kiloworlds.core.words import number
from kiloworlds.evaluation.task import reward_threshold
from kiloworlds.training.config import TrainConfig

if TYPE_CHECKING:
    from kiloworlds.evaluation.evaluate import EntryEvaluation, RunEvaluation

DESCRIPTION = """\
Plays whole episodes with a trained agent and tells their mean return with its 95% bootstrap
interval: kiloworlds eval RUN [flags]. For a run of several seeds every seed's policy plays, and the
interval is over seeds. --env.length 0.7 and the like change the environment, to see how the policy
generalises."""


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `eval`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run, such as runs/ppo/CartPole-v1_1."""
    episodes: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 100
    """Episodes per policy."""
    checkpoint: options.Checkpoint = "newest"
    """Whose policy plays: newest, best (by the return while training) or the number of its steps."""
    seed: int = 10_000
    """Seed of the environments."""
    seed_index: int | None = None
    """Play only the policy of this seed of the run, counted from 0."""
    stochastic: options.Flag = False
    """Draw actions from the policy instead of taking the most likely."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    arguments, env_kwargs = options.split_env_flags(arguments)
    chosen = options.parse(Options, arguments, "eval", DESCRIPTION)
    require_count("--episodes", chosen.episodes)
    from kiloworlds.evaluation.evaluate import best_of, entries_of, evaluate_run

    console = options.console(chosen.json)
    devices.configure()
    trained = options.load(chosen.run, chosen.checkpoint)
    result = evaluate_run(
        trained,
        episodes=chosen.episodes,
        seed=chosen.seed,
        seed_index=chosen.seed_index,
        deterministic=not chosen.stochastic,
        env_kwargs=env_kwargs,
    )
    config = TrainConfig.from_dict(trained.config)
    entries = entries_of(config, result)
    best = best_of(entries)
    shown = result if best is None else best.evaluation
    interval = None if shown.returns.size == 1 else shown.interval
    threshold = reward_threshold(trained.config["env_id"])
    if chosen.json:
        options.print_json(
            {
                "path": trained.path,
                "env_id": trained.config["env_id"],
                "of": None if best is None else best.name,
                "mean_return": shown.mean_return,
                "interval": interval,
                "confidence": 0.95,
                "episodes": shown.returns.size,
                "std_return": float(shown.returns.std()),
                "cut": shown.cut,
                "mean_length": float(shown.lengths.mean()),
                "seed_returns": result.returns.mean(axis=1),
                "entries": [
                    {
                        "name": entry.name,
                        "mean_return": entry.mean_return,
                        "interval": entry.interval,
                        "seed_returns": entry.seed_returns,
                    }
                    for entry in entries
                ],
                "policies": [config.member_names[index] for index in result.seed_indices],
                "agent_returns": shown.agent_returns,
                "win_rate": shown.win_rate,
                "reward_threshold": threshold,
                "deterministic": not chosen.stochastic,
            }
        )
    seeds = len(result.seed_indices)
    line = Text(f"return {number(shown.mean_return)}", style="bold")
    if best is not None:
        line.append(f"  of {best.name}, the best", "not bold")
    if interval is not None and best is None:  # else it is in the line of the entry
        low, high = interval
        line.append(f"  95% interval {number(low)} to {number(high)}", "not bold")
    over = _episodes(chosen.episodes)
    over += f" of each of {config.members_in_words}" if seeds > 1 else ""
    line.append(f"  over {over}", "not bold dim")
    console.print(line, soft_wrap=True)
    options.tell_best(trained, console)
    for words in _details(config, result, entries):
        console.print(Text(words, "dim"), soft_wrap=True)
    if shown.win_rate is not None:
        console.print(Text(f"won {shown.win_rate:.1%} of them"))
    if shown.agent_returns:
        each = "  ".join(f"{name} {number(mean)}" for name, mean in shown.agent_returns.items())
        console.print(Text(f"by agent {each}", "dim"), soft_wrap=True)
    if shown.cut:
        words = "never ended; what was earned up to the cut counts"
        console.print(Text(f"{_episodes(shown.cut)} {words}", "yellow"), soft_wrap=True)
    if threshold is not None:
        solved = shown.mean_return >= threshold
        verdict = (
            f"✓ solved: {threshold:g} is enough"
            if solved
            else f"not solved: that takes {threshold:g}"
        )
        console.print(Text(verdict, "green" if solved else "dim"))
    words = options.run_words(chosen.run, trained.config["env_id"], chosen.imports)
    if best is not None:
        words += f" --seed-index {best.first}"
    console.print(
        Text("next  ", "dim").append(f"kiloworlds play {words}", "not dim"), soft_wrap=True
    )
    return 0


def _details(
    config: TrainConfig, result: "RunEvaluation", entries: list["EntryEvaluation"]
) -> list[str]:
    """What each seed reaches, or each entry of a population; of a single policy which it was."""
    if len(result.seed_indices) == 1:
        (index,) = result.seed_indices
        return [f"of {config.member_names[index]}"] if config.num_members > 1 else []
    if not entries:
        return [f"by seed {'  '.join(map(number, result.returns.mean(axis=1)))}"]
    width = max(len(entry.name) for entry in entries)
    lines = []
    for entry in entries:
        line = f"{entry.name:<{width}}  {number(entry.mean_return)}"
        if (interval := entry.interval) is not None:
            line += f"  95% interval {number(interval[0])} to {number(interval[1])}"
            line += f"  by seed {'  '.join(map(number, entry.seed_returns))}"
        lines.append(line)
    return lines


def _episodes(count: int) -> str:
    return f"{count} episode{'' if count == 1 else 's'}"
