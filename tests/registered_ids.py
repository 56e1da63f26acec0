"""The registered ids as test parameters."""

import pytest

import kiloworlds as kw
from kiloworlds.core.environment import MultiAgentEnvironment
from kiloworlds.core.registry import find_spec


def all_ids():
    """All ids. Of the worlds of several agents, whose layouts and scenarios differ in numbers only, one
    of each class is tested at once, and the others with `-m slow`."""
    seen, parameters = set(), []
    for id in kw.list_envs():
        entry_point = find_spec(id).entry_point
        again = is_multi_agent(id) and entry_point in seen
        seen.add(entry_point)
        parameters.append(pytest.param(id, marks=pytest.mark.slow) if again else pytest.param(id))
    return parameters


def multi_agent_ids():
    """Those of several agents."""
    return [parameter for parameter in all_ids() if is_multi_agent(parameter.values[0])]


def is_multi_agent(id):
    return isinstance(find_spec(id).build(), MultiAgentEnvironment)
