"""Kitchens from names and texts, and what is said of texts that draw none."""

import numpy as np
import pytest

import kiloworlds
from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.overcooked import LAYOUTS, LAYOUTS_V2, Overcooked, OvercookedV2
from kiloworlds.envs.multiagent.overcooked.kitchen import kitchen_of
from kiloworlds.envs.multiagent.overcooked.layouts import find_layout, find_layout_v2

ROOM = """
WPWW
OA X
W AW
WBWW
"""


def test_a_text_draws_a_kitchen():
    env = kiloworlds.make_environment("overcooked/cramped_room", layout=ROOM).unwrapped
    assert env.layout.rows == ("WPWW", "0  X", "W  W", "WBWW")
    assert env.layout.starts == (5, 10)
    _, observation = env.reset(fast_key(0))
    assert observation.shape == (2, 4, 4, 26)
    assert env.kitchen.pots == (1,)


def test_indentation_does_not_count():
    indented = "\n".join(f"    {line}" for line in ROOM.splitlines())
    assert find_layout(indented) == find_layout(ROOM)
    assert find_layout(ROOM.strip()) == find_layout(ROOM)


def test_names():
    assert LAYOUTS == (
        "cramped_room",
        "asymm_advantages",
        "coord_ring",
        "forced_coord",
        "counter_circuit",
    )
    for name in LAYOUTS:
        assert len(find_layout(name).starts) == 2
    for name in LAYOUTS_V2:
        assert find_layout_v2(name).recipes, name


def test_an_unknown_name_is_told_its_neighbours():
    with pytest.raises(
        UnknownNameError, match=r"layout 'cramped_rom'\. Did you mean 'cramped_room'"
    ):
        Overcooked("cramped_rom")
    with pytest.raises(UnknownNameError, match="'grounded_coord_ring'"):
        OvercookedV2("grounded_ring")
    with pytest.raises(InvalidValueError, match="layout=5 must be a name"):
        Overcooked(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("WPWW\nOAQX\nW AW\nWBWW", r"line 2, column 3: 'Q' is none of W \(counter\), A \(agent\)"),
        ("WPWW\nOA X\nW 1AW\nWBWW", "line 3, column 3: '1' is none of"),
        ("WPWW\nOA X\nW AW\nWBW", "line 4, column 4: the line 'WBW' ends here, but all must have"),
        ("WPWW\nOA X\nW AWW\nWBWW", "line 3, column 5: the line 'W AWW' goes on here, .* most, 4"),
        ("WPWW\nOA  \nW AW\nWBXW", "line 2, column 4: floor at the edge"),
        ("WPWW\nOA X\nA  W\nWBWW", "line 3, column 1: an agent at the edge"),
        ("WPWW\nOA X\nW AW\nW WW", "line 4, column 2: floor at the edge"),
        ("WPWW\nOA X\nW  W\nWBWW", r"1 agents \(A\) are drawn; overcooked is for 2"),
        ("WPWW\nOAAX\nW AW\nWBWW", r"3 agents \(A\) are drawn; overcooked is for 2"),
        ("WWWW\nOA X\nW AW\nWBWW", r"it has no pot \(P\)\."),
        ("WPWW\nWA W\nW AW\nWWWW", r"no place of delivery \(X\) and no plates \(B\) and no ingred"),
    ],
)
def test_wrong_texts(text, message):
    with pytest.raises(InvalidValueError, match=message):
        find_layout(text)


@pytest.mark.parametrize(
    ("recipes", "message"),
    [
        (None, "4 recipes can be cooked and nothing tells agents which is asked for"),
        ([], r"recipes=\[\] must be a list of recipes, each 3 numbers"),
        ([[0, 0]], r"each 3 numbers of ingredients, such as \[\[0, 0, 0\]\]"),
        ([0, 0, 0], "must be a list of recipes"),
        (
            [[0, 0, 2]],
            r"\[0, 0, 2\] needs ingredient 2, of which the kitchen has no pile; it has 0, 1",
        ),
        ("soup", "must be a list of recipes"),
    ],
)
def test_wrong_recipes(recipes, message):
    with pytest.raises(InvalidValueError, match=message):
        find_layout_v2("WPWW\n0A X\n1 AW\nWBWW", recipes)


def test_recipes_of_a_text():
    one = find_layout_v2(ROOM)
    assert one.recipes == ((0, 0, 0),)
    shown = find_layout_v2("WPRW\n0A X\n1 AW\nWBWW")
    assert shown.recipes == ((0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1))
    given = find_layout_v2("WPWW\n0A X\n1 AW\nWBWW", [[1, 0, 1]])
    assert given.recipes == ((0, 1, 1),)


def test_number_of_agents():
    crowd = "\n".join(["WPXB0W", "WAAAAW", "WAAAAW", "WWWWWW"])
    assert OvercookedV2(crowd).num_agents == 8
    with pytest.raises(InvalidValueError, match=r"9 agents \(A\) are drawn; it takes 1 to 8"):
        find_layout_v2(crowd.replace("WWWWWW", "WAWWWW\nWWWWWW"))
    with pytest.raises(InvalidValueError, match=r"0 agents \(A\) are drawn"):
        find_layout_v2(crowd.replace("A", " "))


def test_counters_that_nobody_reaches_hold_nothing():
    layout = find_layout("cramped_room")
    assert kitchen_of(layout, hold_everywhere=False).counters == (1, 3, 10, 14, 17)
    everywhere = kitchen_of(layout, hold_everywhere=True).counters
    assert everywhere == (0, 1, 3, 4, 10, 14, 15, 17, 19)


def test_rooms():
    rooms = kitchen_of(find_layout("forced_coord"), hold_everywhere=False).rooms.reshape(5, 5)
    assert len(np.unique(rooms)) == 3
    assert len({rooms[1, 1], rooms[2, 1], rooms[3, 1]}) == 1
    assert rooms[1, 1] != rooms[1, 3]
    assert rooms[0, 0] == -1
