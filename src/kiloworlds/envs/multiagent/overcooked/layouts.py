"""Kitchens as text: their names, the letters they are written in, and the checks of a text."""

import itertools
import statistics
import textwrap
from dataclasses import dataclass

from kiloworlds.core.errors import InvalidValueError, unknown_name

FLOOR, COUNTER, GOAL, PLATES, POT, INDICATOR, BUTTON = " WXBPRL"
"""The letters of cells; an ingredient's pile is the ingredient's digit, an agent's start `AGENT`."""
AGENT = "A"
ONIONS = "O"
"""The pile of ingredient 0, where it is the only one."""
INGREDIENTS_PER_RECIPE = 3
MOST_AGENTS = 8

_MEANINGS = {
    "W": "counter",
    "A": "agent",
    "X": "delivery",
    "B": "plates",
    "O": "onions",
    "P": "pot",
    "space": "floor",
}
_MEANINGS_V2 = {
    **_MEANINGS,
    "O": "ingredient 0",
    "0-9": "that ingredient",
    "R": "recipe indicator",
    "L": "recipe indicator with a button",
}
_LETTERS = frozenset("WAXBOP ")
_LETTERS_V2 = _LETTERS | frozenset("RL0123456789")

Recipe = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """A kitchen.

    Attributes:
        rows: its cells, one letter each (see `FLOOR`), all rows equally long; agents not drawn.
        starts: the cell of each agent, `row * columns + column`.
        recipes: the recipes that may be asked for, each the sorted numbers of its ingredients.
    """

    rows: tuple[str, ...]
    starts: tuple[int, ...]
    recipes: tuple[Recipe, ...]

    @property
    def cells(self) -> str:
        """All letters, row after row."""
        return "".join(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rows), len(self.rows[0])

    @property
    def num_ingredients(self) -> int:
        """One more than the highest ingredient there is a pile of."""
        return 1 + max(int(letter) for letter in self.cells if letter.isdigit())


_CLASSIC = {
    "cramped_room": """
        WWPWW
        OA AO
        W   W
        WBWXW
        """,
    "asymm_advantages": """
        WWWWWWWWW
        O WXWOW X
        W   P   W
        W A PA  W
        WWWBWBWWW
        """,
    "coord_ring": """
        WWWPW
        W A P
        BAW W
        O   W
        WOXWW
        """,
    "forced_coord": """
        WWWPW
        O WAP
        OAW W
        B W W
        WWWXW
        """,
    "counter_circuit": """
        WWWPPWWW
        W A    W
        B WWWW X
        W     AW
        WWWOOWWW
        """,
}
"""The five kitchens of Carroll et al. (2019)."""

_V2 = {
    "cramped_room_v2": """
        WWPWW
        0A A1
        W   R
        WBWXW
        """,
    "asymm_advantages_recipes_center": """
        WWWWWWWWW
        0 WXR01 X
        1   P   W
        W A PA  W
        WWWBWBWWW
        """,
    "asymm_advantages_recipes_right": """
        WWWWWWWWW
        0 WXW01 X
        1   P   R
        W A PA  W
        WWWBWBWWW
        """,
    "asymm_advantages_recipes_left": """
        WWWWWWWWW
        0 WXW01 X
        1   P   R
        R A PA  W
        WWWBWBWWW
        """,
    "two_rooms": """
        WWWWWB10W
        W   W   R
        P A W A W
        W   W   X
        WWWWWWWWW
        """,
    "two_rooms_both": """
        W01BWB10W
        W   W   R
        P A W A W
        W   W   X
        WWWWWWWWW
        """,
    "long_room": """
        WWWWWWWWWWWWWWW
        B            AP
        0             X
        WWWWWWWWWWWWWWW
        """,
    "fun_coordination": """
        WWWWWWWWW
        0   X   2
        RA  P  AW
        1   B   3
        WWWWWWWWW
        """,
    "more_fun_coordination": """
        WWWWWWWWW
        W   X   W
        RA  P  A1
        0   P   2
        W   B   W
        WWWWWWWWW
        """,
    "fun_symmetries": """
        WWWWBWW
        2  W  0
        R APA X
        2  W  1
        WWWWBWW
        """,
    "fun_symmetries_plates": """
        WWWWWWW
        B  W  0
        R APA X
        B  W  1
        WWWWWWW
        """,
    "fun_symmetries1": """
        WWWWWBWW
        2  WW  0
        R AWPA X
        2  WW  1
        WWWWWBWW
        """,
    "overcookedv2_demo": """
        WWPWW
        0A A1
        L   R
        WBWXW
        """,
    "grounded_coord_simple": """
        WW2WWWWW
        W  WB  0
        R ALPA X
        W  WB  1
        WW2WWWWW
        """,
    "grounded_coord_ring": """
        WWW2R2WWW
        W       W
        W WWLWW W
        2 0   B 2
        RAXAP X R
        2 1   B 2
        W WWLWW W
        W       W
        WWW2R2WWW
        """,
    "test_time_simple": """
        WW2WWWWW
        W  WB  0
        R AWPA X
        W  WB  1
        WW2WWWWW
        """,
    "test_time_wide": """
        WWXBWW
        0 A  0
        1    1
        WPWPWW
        3 A  3
        W    W
        WWRWWW
        """,
    "demo_cook_simple": """
        WWWWWR2W0WW
        0      W  B
        W     APA X
        1      W  B
        WWWWWR2W1WW
        """,
    "demo_cook_wide": """
        WWWWBXBWWWW
        WWW0 A 1WWW
        WWWWWPWWWWW
        W    A    W
        0  W3R3W  0
        W1WWWWWWW1W
        """,
}
"""The kitchens that T. Gessler et al. (2025) add."""

_ONIONS_ONLY: tuple[Recipe, ...] = ((0, 0, 0),)
_TRIPLES: tuple[Recipe, ...] = ((0, 0, 0), (1, 1, 1))
_RECIPES: dict[str, tuple[Recipe, ...]] = {
    **dict.fromkeys(_CLASSIC, _ONIONS_ONLY),
    "long_room": _ONIONS_ONLY,
    "fun_coordination": ((0, 0, 2), (1, 1, 3)),
    "more_fun_coordination": ((0, 1, 1), (0, 2, 2)),
    **dict.fromkeys(
        (
            "fun_symmetries",
            "fun_symmetries_plates",
            "fun_symmetries1",
            "grounded_coord_simple",
            "grounded_coord_ring",
            "test_time_simple",
            "test_time_wide",
            "demo_cook_simple",
            "demo_cook_wide",
        ),
        _TRIPLES,
    ),
}
"""Where not every recipe of the kitchen's ingredients may be asked for."""

LAYOUTS = tuple(_CLASSIC)
"""The names of the kitchens of `overcooked`."""
LAYOUTS_V2 = (*_CLASSIC, *_V2)
"""The names of the kitchens of `overcooked_v2`."""

# Agents are numbered in reading order, but for these.
_LAST_FIRST = ("forced_coord",)
_LAST_FIRST_V2 = ("cramped_room", "counter_circuit")


def find_layout(layout: str) -> Layout:
    """The kitchen of `overcooked` of that name, or that a text of several lines draws.

    Raises:
        UnknownNameError: one line that is no name.
        InvalidValueError: a text that draws no kitchen for two agents.
    """
    text = _text("layout", layout, _CLASSIC)
    rows, starts = _parse(text, _LETTERS, _MEANINGS)
    if len(starts) != 2:
        raise InvalidValueError(
            f"layout: {len(starts)} agents (A) are drawn; overcooked is for 2. "
            "overcooked_v2 takes any number up to 8."
        )
    if layout in _LAST_FIRST:
        starts = starts[::-1]
    return Layout(rows, starts, _ONIONS_ONLY)


def find_layout_v2(layout: str, recipes: object = None) -> Layout:
    """The kitchen of `overcooked_v2` of that name, or that a text of several lines draws.

    Args:
        recipes: the recipes that may be asked for, each three numbers of ingredients; None for the
            kitchen's own, which for a text are all that its ingredients allow.

    Raises:
        UnknownNameError: one line that is no name.
        InvalidValueError: a text that draws no kitchen; recipes that cannot be cooked in it, or none
            where agents could not know which is asked for.
    """
    text = _text("layout", layout, {**_CLASSIC, **_V2})
    rows, starts = _parse(text, _LETTERS_V2, _MEANINGS_V2)
    if not 1 <= len(starts) <= MOST_AGENTS:
        raise InvalidValueError(
            f"layout: {len(starts)} agents (A) are drawn; it takes 1 to {MOST_AGENTS}."
        )
    if layout in _LAST_FIRST_V2:
        starts = starts[::-1]
    cells = "".join(rows)
    piles = sorted({int(letter) for letter in cells if letter.isdigit()})
    if recipes is not None:
        return Layout(rows, starts, _checked_recipes(recipes, piles))
    known = _RECIPES.get(layout)
    if known is None:
        known = tuple(itertools.combinations_with_replacement(piles, INGREDIENTS_PER_RECIPE))
        if len(known) > 1 and INDICATOR not in cells and BUTTON not in cells:
            example = ",".join([str(piles[0])] * INGREDIENTS_PER_RECIPE)
            raise InvalidValueError(
                f"layout: {len(known)} recipes can be cooked and nothing tells agents which is asked "
                "for; draw a recipe indicator (R, or L with a button) or give recipes, such as "
                f"[[{example}]]."
            )
    return Layout(rows, starts, known)


def _text(name: str, layout: object, known: dict[str, str]) -> str:
    if not isinstance(layout, str):
        raise InvalidValueError(
            f"{name}={layout!r} must be a name, such as 'cramped_room', or a text of several lines."
        )
    if "\n" in layout:
        return layout
    if layout not in known:
        raise unknown_name(
            name, layout, known, "LAYOUTS and LAYOUTS_V2 in kiloworlds.envs.multiagent.overcooked"
        )
    return known[layout]


def _parse(
    text: str, letters: frozenset[str], meanings: dict[str, str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The rows of a text, and where its agents stand; lines and columns are counted from 1."""
    # A closed kitchen has no floor in its first column: what all lines start with is indentation.
    rows = textwrap.dedent(text).strip("\n").rstrip().split("\n")
    for number, row in enumerate(rows, 1):
        for column, letter in enumerate(row, 1):
            if letter not in letters:
                allowed = ", ".join(f"{key} ({meaning})" for key, meaning in meanings.items())
                raise InvalidValueError(
                    f"layout, line {number}, column {column}: {letter!r} is none of {allowed}."
                )
    width = statistics.mode(map(len, rows))
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            column = min(len(row), width) + 1
            fault = "ends here" if len(row) < width else "goes on here"
            raise InvalidValueError(
                f"layout, line {number}, column {column}: the line {row!r} {fault}, but all must have "
                f"as many letters as most, {width} (W closes the kitchen)."
            )
    for number, row in enumerate(rows, 1):
        for column, letter in enumerate(row, 1):
            at_edge = number in (1, len(rows)) or column in (1, width)
            if at_edge and letter in (FLOOR, AGENT):
                what = "an agent" if letter == AGENT else "floor"
                raise InvalidValueError(
                    f"layout, line {number}, column {column}: {what} at the edge; close the kitchen "
                    "there, for example with W (counter)."
                )
    cells = "".join(rows).replace(ONIONS, "0")
    _require_all(cells)
    starts = tuple(cell for cell, letter in enumerate(cells) if letter == AGENT)
    cells = cells.replace(AGENT, FLOOR)
    return tuple(cells[first : first + width] for first in range(0, len(cells), width)), starts


def _require_all(cells: str) -> None:
    needed = {POT: "pot (P)", GOAL: "place of delivery (X)", PLATES: "plates (B)"}
    missing = [name for letter, name in needed.items() if letter not in cells]
    if not any(letter.isdigit() for letter in cells):
        missing.append("ingredients (such as O)")
    if missing:
        raise InvalidValueError(
            f"layout: no soup can be served in it; it has no {' and no '.join(missing)}."
        )


def _checked_recipes(recipes: object, piles: list[int]) -> tuple[Recipe, ...]:
    example = ", ".join([str(piles[0])] * INGREDIENTS_PER_RECIPE)
    try:
        given = tuple(tuple(int(number) for number in recipe) for recipe in recipes)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        given = ()
    if not given or any(len(recipe) != INGREDIENTS_PER_RECIPE for recipe in given):
        raise InvalidValueError(
            f"recipes={recipes!r} must be a list of recipes, each {INGREDIENTS_PER_RECIPE} numbers of "
            f"ingredients, such as [[{example}]]."
        )
    for recipe in given:
        for number in recipe:
            if number not in piles:
                raise InvalidValueError(
                    f"recipes: {list(recipe)} needs ingredient {number}, of which the kitchen has no "
                    f"pile; it has {', '.join(map(str, piles))}."
                )
    return tuple(tuple(sorted(recipe)) for recipe in given)
