"""The picture of a table of Hanabi."""

import numpy as np

from kiloworlds.envs.drawing import Align, Canvas
from kiloworlds.envs.multiagent.hanabi.game import HanabiState, Rules
from kiloworlds.envs.multiagent.hanabi.text import (
    LETTERS,
    colors_and_ranks,
    describe_last_move,
    firework_height,
    hinted_cards,
    num_discarded,
)

# Apart for all kinds of colour vision (M. Okabe & K. Ito 2008); letters tell colours apart too.
_FILLS = ("#d55e00", "#f0e442", "#009e73", "#ffffff", "#0072b2", "#cc79a7")
_INKS = ("#ffffff", "#1e293b", "#ffffff", "#1e293b", "#ffffff", "#1e293b")
_INK, _FAINT, _LINE, _EMPTY, _TABLE = "#1e293b", "#cbd5e1", "#64748b", "#e2e8f0", "#f8fafc"
_TOKEN, _LIFE, _MARK = "#0ea5e9", "#7c3aed", "#111827"

# Pixels.
_MARGIN, _LABEL, _STRIP = 16, 84, 34
_CARD_WIDTH, _CARD_HEIGHT, _GAP = 62, 74, 12
_ROW = 136  # of a hand and what is known of it
_PILE = 64  # from firework to firework
_RANK_ROW = 22  # of the discards


def draw_table(rules: Rules, state: HanabiState, score: int) -> np.ndarray:
    """Hands to the left, each card above what its owner knows of it; the table to the right.

    Black are the colours and ranks a card may have, boxed those it was told to have, pale all others.
    """
    table = _Table(rules, state)
    for agent in range(rules.num_agents):
        table.hand(agent)
    table.fireworks()
    table.discards()
    table.tokens(score)
    table.strip()
    return table.canvas.pixels()


class _Table:
    """Points are (x, y) in pixels from the upper left corner."""

    def __init__(self, rules: Rules, state: HanabiState):
        self.rules, self.state = rules, state
        self.touched = hinted_cards(rules, state)
        self.hands_width = _LABEL + rules.hand_size * (_CARD_WIDTH + _GAP)
        self.right = _MARGIN + self.hands_width + 2 * _GAP
        width = self.right + max(rules.num_colors * _PILE, 250) + _MARGIN
        self.tokens_top = 150 + rules.num_ranks * _RANK_ROW
        content = max(rules.num_agents * _ROW, self.tokens_top + 4 * 28)
        self.width, self.height = width, _MARGIN + content + _STRIP
        self.canvas = Canvas(width, self.height, (0, width), y_origin=0, background=_TABLE)

    def hand(self, agent: int) -> None:
        top = _MARGIN + agent * _ROW
        middle = top + _CARD_HEIGHT / 2
        if int(self.state.turn) == agent:
            end = _MARGIN + self.hands_width
            self._box(4, top - 8, end, top + _ROW - 16, "#e0f2fe")
            self._text(_MARGIN, middle + 20, "to move", _INK, 13)
        self._text(_MARGIN, middle, f"agent_{agent}", _INK, 16)
        for slot in range(self.rules.hand_size):
            left = _MARGIN + _LABEL + slot * (_CARD_WIDTH + _GAP)
            kind = int(self.state.hands[agent, slot])
            if kind:
                (color,), (rank,) = colors_and_ranks(self.rules, kind)
                touched = (agent, slot) in self.touched
                self._card(left, top, (_CARD_WIDTH, _CARD_HEIGHT), color, rank, touched)
                self._knowledge(left, top + _CARD_HEIGHT + 14, agent, slot)
            else:
                self._box(left, top, left + _CARD_WIDTH, top + _CARD_HEIGHT, _EMPTY)

    def fireworks(self) -> None:
        self._text(self.right, _MARGIN + 4, "Fireworks", _INK, 14)
        for color in range(self.rules.num_colors):
            left, top = self.right + color * _PILE, _MARGIN + 18
            height = firework_height(self.rules, self.state, color)
            if height:
                self._card(left, top, (50, 60), color, height - 1)
            else:
                self._box(left, top, left + 50, top + 60, _EMPTY)
                self._text(left + 25, top + 30, LETTERS[color], _LINE, 20, "center")

    def discards(self) -> None:
        top = _MARGIN + 104
        self._text(self.right, top, "Discarded", _INK, 14)
        for color in range(self.rules.num_colors):
            for rank, copies in enumerate(self.rules.copies):
                y = top + 22 + rank * _RANK_ROW
                left = self.right + color * _PILE
                name = f"{LETTERS[color]}{rank + 1}"
                self._text(left, y, name, _LINE, 12)
                discarded = num_discarded(self.state, self.rules.kind(color, rank))
                step = min(12, (_PILE - 26) / copies)
                for copy in range(copies):
                    x = left + 22 + copy * step
                    fill = _FILLS[color] if copy < discarded else _TABLE
                    edge = _INK if copy < discarded else _FAINT
                    self._box(x, y - 6, x + step - 2, y + 6, edge)
                    self._box(x + 1, y - 5, x + step - 3, y + 5, fill)

    def tokens(self, score: int) -> None:
        top, state, rules = _MARGIN + self.tokens_top, self.state, self.rules
        deck = sum(int(layer).bit_count() for layer in state.deck)
        self._row(top, "Information", int(state.information), rules.max_info_tokens, _TOKEN)
        self._row(top + 26, "Lives", int(state.lives), rules.max_life_tokens, _LIFE)
        self._text(self.right, top + 52, f"Deck {deck}", _INK, 14)
        self._text(self.right + 90, top + 52, f"Score {score} of {rules.num_kinds}", _INK, 14)

    def strip(self) -> None:
        y = self.height - _STRIP
        self._box(0, y, self.width, self.height, "#ffffff")
        move = describe_last_move(self.rules, self.state)
        self._text(_MARGIN, y + _STRIP / 2, f"Last move: {move}", _INK, 13)

    def _card(
        self,
        left: float,
        top: float,
        size: tuple[float, float],
        color: int,
        rank: int,
        marked: bool = False,
    ) -> None:
        width, height = size
        edge = 4 if marked else 1
        self._box(left - edge, top - edge, left + width + edge, top + height + edge, _MARK)
        self._box(left, top, left + width, top + height, _FILLS[color])
        name = f"{LETTERS[color]}{rank + 1}"
        self._text(left + width / 2, top + height / 2, name, _INKS[color], 26, "center")

    def _knowledge(self, left: float, top: float, agent: int, slot: int) -> None:
        rules = self.rules
        colors, ranks = colors_and_ranks(rules, int(self.state.possible[agent, slot]))
        hinted = int(self.state.hinted[agent, slot])
        rows = (
            (LETTERS[: rules.num_colors], colors, hinted),
            ([str(rank + 1) for rank in range(rules.num_ranks)], ranks, hinted >> rules.num_colors),
        )
        for row, (names, possible, told) in enumerate(rows):
            step = _CARD_WIDTH / len(names)
            for index, name in enumerate(names):
                x, y = left + (index + 0.5) * step, top + 17 * row
                is_told = bool(told >> index & 1)
                if is_told:
                    self._box(x - 6, y - 8, x + 6, y + 8, _INK)
                ink = "#ffffff" if is_told else _INK if index in possible else _FAINT
                self._text(x, y, name, ink, 12, "center")

    def _row(self, y: float, name: str, count: int, most: int, color: str) -> None:
        self._text(self.right, y, name, _INK, 14)
        if most > 10:  # too many to show
            self._text(self.right + 90, y, f"{count} of {most}", _INK, 14)
            return
        for index in range(most):
            center = self._point(self.right + 98 + index * 18, y)
            self.canvas.circle(center, 7, _LINE)
            self.canvas.circle(center, 6, color if index < count else _TABLE)

    def _box(self, left: float, top: float, right: float, bottom: float, color: str) -> None:
        self.canvas.rectangle(self._point(left, bottom), self._point(right, top), color)

    def _text(
        self, x: float, y: float, text: str, color: str, size: int, align: Align = "left"
    ) -> None:
        self.canvas.text(self._point(x, y), text, color, size=size, align=align)

    def _point(self, x: float, y: float) -> tuple[float, float]:
        return x, self.height - y
