"""The registered ids as test parameters."""

import pytest

import kiloworlds as kw
from kiloworlds.core.environment import MultiAgentEnvironment
from kiloworlds.core.registry import find_spec

SMALLEST = ("smax/3m", "overcooked/cramped_room", "overcooked_v2/cramped_room", "hanabi/small-2p")
"""Those of their class that are tested at once; of classes not named here it is the first id."""

SLOW_TO_COMPILE = (
    "storm/np-chicken",
    "storm/2p-bach-or-stravinsky",
    "navigation/blank-1r",
    "overcooked_v2/cramped_room",
    "mpe/simple_tag_v3",
    "mpe/simple_reference_v3",
    "mpe/simple_speaker_listener_v4",
    "mpe/simple_world_comm_v3",
    "mpe/simple_adversary_v3",
    "mpe/simple_crypto_v3",
    "mpe/simple_push_v3",
)
"""Worlds whose rules have tests of their own that run at once; only checks of all worlds leave them to
`-m slow`, since each takes 10 to 50 seconds to compile."""


SLOW_UNCOMPILED = ("smax/3m", "hanabi/small-2p", "overcooked/cramped_room")
"""Worlds so large that running them operation by operation compiles hundreds of programs."""


def all_ids():
    """All ids. Of the worlds of several agents, whose layouts and scenarios differ in numbers only, one
    of each class is tested at once, and the others with `-m slow`."""
    seen = {find_spec(id).entry_point: id for id in SMALLEST}
    parameters = []
    for id in kw.list_envs():
        first = seen.setdefault(find_spec(id).entry_point, id)
        later = is_multi_agent(id) and (first != id or id in SLOW_TO_COMPILE)
        parameters.append(pytest.param(id, marks=pytest.mark.slow) if later else pytest.param(id))
    return parameters


def multi_agent_ids():
    """Those of several agents."""
    return [parameter for parameter in all_ids() if is_multi_agent(parameter.values[0])]


def is_multi_agent(id):
    return isinstance(find_spec(id).build(), MultiAgentEnvironment)
