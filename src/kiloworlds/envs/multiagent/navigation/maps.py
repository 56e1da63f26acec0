"""Maps with walls and places to start from and to reach, from text or by name."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kiloworlds.core.errors import InvalidValueError, unknown_name
from kiloworlds.envs.multiagent.navigation.walls import MOST_CELLS

Start = tuple[float, float, float | None]
Goal = tuple[float, float]

_WALL, _FREE = "#", "."


@dataclass(frozen=True)
class NavigationMap:
    """Square cells of 1 m, some of them walls.

    Attributes:
        rows: the map from its top row (largest y) down, `#` a wall and `.` a free cell.
        starts: of each robot x, y (m, from the lower left corner) and heading (rad, 0 to the right,
            counter-clockwise), None for one drawn anew for each episode; no starts to draw all.
        goals: x and y of the goal of each robot; none where there are no starts.

    Raises:
        InvalidValueError: another letter, rows of different lengths, an open border or a map that is
            too small or too large (with line and column); a start or goal in a wall; as many starts
            as goals are needed.
    """

    rows: tuple[str, ...]
    starts: tuple[Start, ...] = ()
    goals: tuple[Goal, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "rows", tuple(self.rows))
        object.__setattr__(self, "starts", tuple(tuple(start) for start in self.starts))
        object.__setattr__(self, "goals", tuple(tuple(goal) for goal in self.goals))
        _check_rows(self.rows, _WALL + _FREE)
        if len(self.starts) != len(self.goals):
            raise InvalidValueError(
                f"the map has {len(self.starts)} starts and {len(self.goals)} goals; each robot "
                "needs one of either."
            )
        for kind, places in (("start", self.starts), ("goal", self.goals)):
            for number, place in enumerate(places):
                self._check_place(f"the {kind} of robot {number}", place[0], place[1])

    def _check_place(self, what: str, x: float, y: float) -> None:
        height, width = self.shape
        if not (0 <= x < width and 0 <= y < height):
            raise InvalidValueError(
                f"{what} ({x:g}, {y:g}) lies outside the {width} m x {height} m."
            )
        if self.is_wall[int(y), int(x)]:
            free = np.argwhere(~self.is_wall)[:, ::-1] + 0.5
            near_x, near_y = free[np.argmin(((free - (x, y)) ** 2).sum(1))]
            raise InvalidValueError(
                f"{what} ({x:g}, {y:g}) lies in a wall; the nearest free cell is around "
                f"({near_x:g}, {near_y:g})."
            )

    @classmethod
    def from_text(cls, text: str) -> "NavigationMap":
        r"""Reads a map drawn in letters, its top row first.

        `#` is a wall and `.` a free cell, in whose middle `A` starts the first robot and `a` is its
        goal, `B` and `b` those of the second, and so on; robots from letters face anywhere. Without
        letters starts and goals are drawn for each episode.

        Example:
            >>> NavigationMap.from_text("#####\n#A.a#\n#####").goals
            ((3.5, 1.5),)
        """
        lines = text.splitlines()
        while lines and not lines[0].strip():  # so that a drawing may begin on a line of its own
            lines = lines[1:]
        while lines and not lines[-1].strip():
            lines = lines[:-1]
        indent = min((len(line) - len(line.lstrip()) for line in lines), default=0)
        rows = tuple(line[indent:].rstrip() for line in lines)
        letters = "".join(chr(code) for code in range(ord("A"), ord("Z") + 1))
        _check_rows(rows, _WALL + _FREE + letters + letters.lower())
        places: dict[str, Goal] = {}
        for line, row in enumerate(rows):
            for column, letter in enumerate(row):
                if letter in _WALL + _FREE:
                    continue
                if letter in places:
                    raise InvalidValueError(
                        f"the map has a second {letter!r} in line {line + 1}, column {column + 1}; "
                        "each start and each goal has a letter of its own."
                    )
                places[letter] = column + 0.5, len(rows) - line - 0.5
        count = sum(letter.isupper() for letter in places)
        wanted = letters[:count] + letters[:count].lower()
        if sorted(places) != sorted(wanted):
            wrong = sorted(set(places) - set(wanted)) or sorted(set(wanted) - set(places))
            raise InvalidValueError(
                f"the map has the starts and goals {''.join(sorted(places))!r}; letters run from A "
                f"without a gap, and each start has its goal in lower case: see {wrong[0]!r}."
            )
        return cls(
            tuple("".join(c if c in _WALL + _FREE else _FREE for c in row) for row in rows),
            tuple((*places[letter], None) for letter in letters[:count]),
            tuple(places[letter.lower()] for letter in letters[:count]),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """The rows and columns."""
        return len(self.rows), len(self.rows[0])

    @property
    def is_wall(self) -> np.ndarray:
        """The walls `[row, column]`, row 0 at the bottom (y between 0 and 1)."""
        return np.array([[letter == _WALL for letter in row] for row in reversed(self.rows)])


def as_map(
    layout: "NavigationMap | str | None", named: Mapping[str, NavigationMap]
) -> NavigationMap | None:
    """A map as it is, of text (which has lines), or of a name.

    Raises:
        UnknownNameError: there is no map of that name.
    """
    if layout is None or isinstance(layout, NavigationMap):
        return layout
    if not isinstance(layout, str):
        raise InvalidValueError(
            f"layout={layout!r}: it takes the name of a map, a map drawn as text, a NavigationMap, or "
            "None for random maps."
        )
    if "\n" in layout:
        return NavigationMap.from_text(layout)
    if layout not in named:
        raise unknown_name("map", layout, named, "kiloworlds.envs.multiagent.navigation.MAPS")
    return named[layout]


def _check_rows(rows: tuple[str, ...], letters: str) -> None:
    if len(rows) < 3 or len(rows[0]) < 3:
        raise InvalidValueError(
            f"the map has {len(rows)} rows of {len(rows[0]) if rows else 0} cells; the smallest is "
            "3 by 3, one free cell with walls around it."
        )
    for line, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise InvalidValueError(
                f"the map is not a rectangle: line {line} ends in column {len(row)}, line 1 in column "
                f"{len(rows[0])}."
            )
        for column, letter in enumerate(row, 1):
            if letter not in letters:
                raise InvalidValueError(
                    f"the map has {letter!r} in line {line}, column {column}; it takes "
                    f"{_explain(letters)}."
                )
            on_border = line in (1, len(rows)) or column in (1, len(row))
            if on_border and letter != _WALL:
                raise InvalidValueError(
                    f"the map is open in line {line}, column {column}, where it has {letter!r}; "
                    f"its border must be walls, {_WALL!r}."
                )
    if max(len(rows), len(rows[0])) > MOST_CELLS:
        line, column = min(len(rows), MOST_CELLS + 1), min(len(rows[0]), MOST_CELLS + 1)
        raise InvalidValueError(
            f"the map goes on in line {line}, column {column}; the largest is {MOST_CELLS} by "
            f"{MOST_CELLS} cells."
        )


def _explain(letters: str) -> str:
    known = f"{_WALL!r} (wall) and {_FREE!r} (free)"
    return known if letters == _WALL + _FREE else f"{known}, letters for starts (A) and goals (a)"
