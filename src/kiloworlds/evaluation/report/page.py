"""The page: facts, curves and videos of one run in one file that needs no other."""

import base64
import io
import itertools
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.outputs import check_output_file
from kiloworlds.core.words import number
from kiloworlds.evaluation.axes import INK, PALETTE, dress, figure_of
from kiloworlds.evaluation.evaluate import RunEvaluation, best_of, entries_of, evaluate_run
from kiloworlds.evaluation.highlights import (
    NotRepeatableError,
    PickedEpisode,
    episodes_by_return,
)
from kiloworlds.evaluation.plot import plot_run_figure, run_title
from kiloworlds.evaluation.report.facts import facts_of
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.storage.run_directory import write_whole

if TYPE_CHECKING:
    from kiloworlds.training.run import Run

_WATCHED = 32
"""Episodes from which the best, the median and the worst are shown."""


def write_report(
    run: "Run",
    path: Path | None = None,
    *,
    episodes: int = 100,
    videos: bool = True,
    seed: int = 10_000,
) -> Path:
    """Writes an HTML page about a run: one file with everything in it, and without any script.

    Args:
        path: of the file; `report.html` in the run directory if None.
        episodes: that each seed's policy plays for the evaluation.
        videos: whether the best, the median and the worst of some episodes are shown.
        seed: of the environments of the evaluation.

    Raises:
        RunDirectoryError: the run has no policy yet.
        InvalidValueError: no file can be at `path`.
        OSError: the file cannot be written.
    """
    path = run.path / "report.html" if path is None else path
    check_output_file(path, "report.html")
    evaluation = evaluate_run(run, episodes=episodes, seed=seed)
    config = TrainConfig.from_dict(run.config)
    best = best_of(entries_of(config, evaluation))
    shown_evaluation = evaluation if best is None else best.evaluation
    player = 0 if best is None else best.first
    shown, why_not = _videos(run, seed, player) if videos else ([], "Left out.")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    template = (
        resources.files("kiloworlds.evaluation.report")
        .joinpath("page.html")
        .read_text(encoding="utf-8")
    )
    page = environment.from_string(template).render(
        facts=facts_of(run, run_title(run.config), evaluation, episodes),
        curve=_curve(run),
        returns=_histogram(shown_evaluation),
        videos=shown,
        player=_player_in_words(config, player),
        no_videos=why_not,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page)
    return path


def _curve(run: "Run") -> str | None:
    """The learning curve; None where no row tells a return."""
    try:
        return _svg(plot_run_figure(run))
    except InvalidValueError:
        return None


def _videos(run: "Run", seed: int, player: int) -> tuple[list[dict[str, Any]], str]:
    """Episodes to watch, or why there are none."""
    try:
        picked = episodes_by_return(run, episodes=_WATCHED, seed=seed, seed_index=player)
    except (InvalidValueError, NotRepeatableError) as error:
        return [], f"No videos: {error}"
    equals = itertools.groupby(picked, key=lambda each: each.episode_return)
    return [_video(list(episodes)) for _, episodes in equals], ""


def _video(equals: list[PickedEpisode]) -> dict[str, Any]:
    """What is shown of picks with the same return: the first of them."""
    picks = [each.pick for each in equals]
    shown = equals[0]
    return {
        "pick": ", ".join(picks[:-1]) + " and " * (len(picks) > 1) + picks[-1],
        "are_equal": len(picks) > 1,
        "seed": shown.seed,
        "episodes": _WATCHED,
        "episode_return": number(shown.episode_return),
        "length": shown.length,
        "ended": shown.ended,
        "source": _data_url(shown.video.read_bytes(), "image/gif"),
    }


def _player_in_words(config: TrainConfig, index: int) -> str:
    name = config.member_names[index]
    return f"{name} (one of {config.members_in_words})" if config.num_members > 1 else name


def _histogram(evaluation: RunEvaluation) -> str | None:
    """How the returns of all episodes lie; None where all are equal."""
    if not np.ptp(evaluation.returns):
        return None
    figure = figure_of(9, 2.4)
    axes = figure.subplots()
    returns = evaluation.returns.ravel()
    bins = min(40, max(5, round(np.sqrt(returns.size))))
    axes.hist(returns, bins=bins, color=PALETTE[0], alpha=0.8)
    axes.axvline(float(returns.mean()), color=PALETTE[1], linewidth=2)
    axes.set_xlabel("return of an episode; the line is the mean")
    axes.set_ylabel("episodes")
    axes.yaxis.label.set_color(INK)
    dress(axes)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    """A picture as a data URL; its words stay words, which readers can search and scale."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kiloworlds"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return _data_url(text.getvalue().encode(), "image/svg+xml")


def _data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
