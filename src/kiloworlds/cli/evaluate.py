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
    from kiloworlds.evaluation.evaluate import RunEvaluation

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
    from kiloworlds.evaluation.evaluate import evaluate_run

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
    interval = None if result.returns.size == 1 else result.interval
    config = TrainConfig.from_dict(trained.config)
    threshold = reward_threshold(trained.config["env_id"])
    if chosen.json:
        options.print_json(
            {
                "path": trained.path,
                "env_id": trained.config["env_id"],
                "mean_return": result.mean_return,
                "interval": interval,
                "confidence": 0.95,
                "episodes": result.returns.size,
                "std_return": float(result.returns.std()),
                "cut": result.cut,
                "mean_length": float(result.lengths.mean()),
                "seed_returns": result.returns.mean(axis=1),
                "policies": [config.member_names[index] for index in result.seed_indices],
                "agent_returns": result.agent_returns,
                "win_rate": result.win_rate,
                "reward_threshold": threshold,
                "deterministic": not chosen.stochastic,
            }
        )
    seeds = len(result.seed_indices)
    line = Text(f"return {number(result.mean_return)}", style="bold")
    if interval is not None:
        low, high = interval
        line.append(f"  95% interval {number(low)} to {number(high)}", "not bold")
    over = _episodes(chosen.episodes)
    over += f" of each of {config.members_in_words}" if seeds > 1 else ""
    line.append(f"  over {over}", "not bold dim")
    console.print(line, soft_wrap=True)
    for words in _by_seed(config, result) if seeds > 1 else _one_of_several(config, result):
        console.print(Text(words, "dim"), soft_wrap=True)
    if result.win_rate is not None:
        console.print(Text(f"won {result.win_rate:.1%} of them"))
    if result.agent_returns:
        each = "  ".join(f"{name} {number(mean)}" for name, mean in result.agent_returns.items())
        console.print(Text(f"by agent {each}", "dim"), soft_wrap=True)
    if result.cut:
        words = "never ended; what was earned up to the cut counts"
        console.print(Text(f"{_episodes(result.cut)} {words}", "yellow"), soft_wrap=True)
    if threshold is not None and not (
        seeds > 1 and config.population
    ):  # of one setting, not of many
        solved = result.mean_return >= threshold
        verdict = (
            f"✓ solved: {threshold:g} is enough"
            if solved
            else f"not solved: that takes {threshold:g}"
        )
        console.print(Text(verdict, "green" if solved else "dim"))
    words = options.run_words(chosen.run, trained.config["env_id"], chosen.imports)
    console.print(
        Text("next  ", "dim").append(f"kiloworlds play {words}", "not dim"), soft_wrap=True
    )
    return 0


def _by_seed(config: TrainConfig, result: "RunEvaluation") -> list[str]:
    """The mean of each seed in a line; of a population a line for each entry, with its mean before."""
    means = result.returns.mean(axis=1)
    if not config.population:
        return [f"by seed {'  '.join(map(number, means))}"]
    entries = means.reshape(-1, config.num_seeds)
    width = max(map(len, config.entry_names))
    return [
        f"{name:<{width}}  {number(seeds.mean())}"
        + (f"  by seed {'  '.join(map(number, seeds))}" if len(seeds) > 1 else "")
        for name, seeds in zip(config.entry_names, entries, strict=True)
    ]


def _one_of_several(config: TrainConfig, result: "RunEvaluation") -> list[str]:
    """Whose policy played, where there are others."""
    (index,) = result.seed_indices
    return [f"of {config.member_names[index]}"] if config.num_members > 1 else []


def _episodes(count: int) -> str:
    return f"{count} episode{'' if count == 1 else 's'}"
