"""The contract's rules about several agents: each is seen to fail once."""

import pytest
from compiled_multi_agent_envs import Hunt, Relay

from kiloworlds.core.random import fast_key
from kiloworlds.core.time_limit import with_time_limit
from kiloworlds.testing.contract import CHECKS


@pytest.mark.parametrize("env", [Relay(), with_time_limit(Hunt(), 5)], ids=["relay", "hunt"])
def test_environments_that_keep_it(env):
    for name in ("types", "agents", "long rollout"):
        CHECKS[name](env, fast_key(0))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("stalled", "an agent has no legal action after step 1"),
        ("seen", "a dead agent observes something other than zeros after step 1"),
        ("paid", "a dead agent gets a reward, and team_reward is False after step 2"),
        ("revived", "a dead agent is alive again within its episode after step 2"),
        ("endless", "the episode goes on although no agent lives after step 3"),
    ],
)
def test_what_breaks_it_is_found(fault, message):
    with pytest.raises(AssertionError, match=message):
        CHECKS["long rollout"](Relay(fault=fault), fast_key(0))
