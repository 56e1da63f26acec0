import io
import re
import time

import pytest
from rich.console import Console

from kiloworlds.cli.display import (
    LineDisplay,
    LiveDisplay,
    duration,
    make_display,
    mean_and_spread,
    number,
    progress_line,
    sparkline,
)


def row(step, returns, fps=1000.0):
    return {
        "step": step,
        "seconds": step / 100,
        "fps": fps,
        "rollout/ep_rew_mean": returns,
        "rollout/ep_len_mean": returns,
        "train/value_loss": [0.5] * len(returns),
    }


def console(terminal):
    return Console(
        file=io.StringIO(), force_terminal=terminal, width=100, color_system=None, _environ={}
    )


def text(target):
    return target.file.getvalue()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0.0000"),
        (0.0123, "0.0123"),
        (-0.5, "-0.500"),
        (12.345, "12.35"),
        (475.31, "475.3"),
        (-1234567.0, "-1,234,567"),
        (4.2e-5, "4.2e-05"),
    ],
)
def test_numbers_keep_about_four_digits(value, shown):
    assert number(value) == shown


def test_durations():
    assert [duration(seconds) for seconds in (-1, 7, 760, 10931)] == [
        "0:00",
        "0:07",
        "12:40",
        "3:02:11",
    ]


def test_spread_is_over_the_seeds_that_have_a_value():
    assert mean_and_spread([1.0, None, 3.0]) == (2.0, 1.0)
    assert mean_and_spread([None, float("nan")]) is None
    assert mean_and_spread(None) is None


def test_sparkline_rises_with_the_values():
    assert sparkline([], 5) == ""
    assert sparkline([3, 3], 5) == "▁▁"
    assert sparkline(range(8), 8) == "▁▂▃▄▅▆▇█"
    assert len(sparkline(range(1000), 30)) == 30


def test_terminal_gets_the_panel_and_a_pipe_gets_lines():
    assert isinstance(make_display(console(True), "t", 10), LiveDisplay)
    assert isinstance(make_display(console(False), "t", 10), LineDisplay)


def test_lines_are_first_then_sparse_then_last():
    now = [0.0]
    target = console(False)
    with LineDisplay(target, "ppo", 1000, clock=lambda: now[0]) as display:
        for second in range(131):
            now[0] = float(second)
            display.update(row(second, [1.0]))
    steps = [int(line.split()[1]) for line in text(target).splitlines()[2:]]
    assert steps[:12] == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55]
    assert steps[12:] == [85, 115, 130]


def test_line_shows_mean_and_spread_over_seeds():
    target = console(False)
    with LineDisplay(target, "ppo", 1000) as display:
        display.update(row(500, [100.0, 120.0], fps=None))
    assert "return 110.0 ± 10.0" in text(target)
    assert "50%" in text(target)


def test_of_several_agents_more_than_their_mean_is_shown():
    lively, plain = console(True), console(False)
    told = row(500, [1.0, 3.0]) | {
        "rollout/ep_rew_mean/adversary": [9.0, 11.0],
        "rollout/ep_rew_mean/agent": [None, -7.0],
        "rollout/win_rate": [0.7, 0.8],
    }
    with LiveDisplay(lively, "ippo", 1000) as panel, LineDisplay(plain, "ippo", 1000) as lines:
        panel.update(told)
        lines.update(told)
    for shown in (text(lively), text(plain)):
        assert re.search(r"2.000 ± 1.000 +won 75.0% +adversary 10.00 +agent -7.000", shown)


def test_panel_shows_progress_return_and_losses():
    target = console(True)
    with LiveDisplay(target, "ppo · CartPole-v1", 1000, threshold=105.0) as display:
        display.update(row(250, [None, None], fps=None))
        display.update(row(500, [100.0, 120.0]))
    shown = text(target)
    assert "50%" in shown
    assert "110.0 ± 10.0" in shown
    assert "✓ solved (105)" in shown
    assert "1,000 steps/s over 2 trainings" in shown
    assert "value 0.500" in shown


def test_panel_without_any_row_ends_quietly():
    target = console(True)
    with LiveDisplay(target, "ppo", 1000):
        pass
    assert "no metrics yet" in text(target)


def test_panel_keeps_its_labels_in_a_narrow_terminal():
    target = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    with LiveDisplay(target, "ppo", 1000) as display:
        display.update(row(500, [100.0]))
    for label in ("progress", "return", "speed", "losses"):
        assert label in text(target)


def test_progress_is_a_line_now_and_then_where_none_can_be_redrawn():
    target, times = console(False), iter((0.0, 0.0, 3.0, 6.0, 6.0))
    with progress_line(target, lambda: next(times)) as say:
        for words in ("playing", "playing: step 20", "playing: step 40"):
            say(words)
    assert text(target) == "playing\nplaying: step 40\n"


def test_progress_is_redrawn_in_a_terminal():
    target = console(True)
    with progress_line(target) as say:
        say("playing: step 20")
        time.sleep(0.2)
    assert "playing: step 20" in text(target)
    assert text(target).endswith("\x1b[2K")  # nothing of it stays
