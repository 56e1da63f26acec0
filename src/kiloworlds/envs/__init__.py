"""Compiled environments. Importing this package registers them; their modules load when built."""

from kiloworlds.core.registry import register

_CLASSIC = "kiloworlds.envs.classic"
_TOY_TEXT = "kiloworlds.envs.toy_text"
_MULTIAGENT = "kiloworlds.envs.multiagent"
_MPE = "kiloworlds.envs.multiagent.mpe"


def _builtin(id: str, entry_point: str, steps: int | None, threshold: float | None, **kwargs):
    register(
        id,
        entry_point,
        kwargs=kwargs,
        max_episode_steps=steps,
        reward_threshold=threshold,
        source="kiloworlds",
    )


_builtin("CartPole-v0", f"{_CLASSIC}.cartpole:CartPole", 200, 195.0)
_builtin("CartPole-v1", f"{_CLASSIC}.cartpole:CartPole", 500, 475.0)
_builtin("MountainCar-v0", f"{_CLASSIC}.mountain_car:MountainCar", 200, -110.0)
_builtin("MountainCarContinuous-v0", f"{_CLASSIC}.mountain_car:MountainCarContinuous", 999, 90.0)
_builtin("Pendulum-v1", f"{_CLASSIC}.pendulum:Pendulum", 200, None)
_builtin("Acrobot-v1", f"{_CLASSIC}.acrobot:Acrobot", 500, -100.0)
_builtin("FrozenLake-v1", f"{_TOY_TEXT}.frozen_lake:FrozenLake", 100, 0.70, map_name="4x4")
_builtin("FrozenLake8x8-v1", f"{_TOY_TEXT}.frozen_lake:FrozenLake", 200, 0.85, map_name="8x8")
_builtin("CliffWalking-v1", f"{_TOY_TEXT}.cliff_walking:CliffWalking", None, None)
_builtin(
    "CliffWalkingSlippery-v1",
    f"{_TOY_TEXT}.cliff_walking:CliffWalking",
    None,
    None,
    is_slippery=True,
)
# Gymnasium renamed v3 to v4 when it mended rain and fickle passengers; the default rules are one.
# Gymnasium's reward threshold for Taxi, 8, lies above what the best policy reaches, 7.93.
_builtin("Taxi-v3", f"{_TOY_TEXT}.taxi:Taxi", 200, None)
_builtin("Taxi-v4", f"{_TOY_TEXT}.taxi:Taxi", 200, None)
_builtin("Blackjack-v1", f"{_TOY_TEXT}.blackjack:Blackjack", None, None, sab=True, natural=False)
_builtin("Catch-v0", f"{_TOY_TEXT}.catch:Catch", None, 1.0)
_builtin("NChain-v0", f"{_TOY_TEXT}.nchain:NChain", 1000, None)

# mpe2's episodes are 25 steps long (its `max_cycles`).
_builtin("mpe/simple_v3", f"{_MPE}.simple:Simple", 25, None)
_builtin("mpe/simple_spread_v3", f"{_MPE}.simple_spread:SimpleSpread", 25, None)
_builtin("mpe/simple_tag_v3", f"{_MPE}.simple_tag:SimpleTag", 25, None)
_builtin("mpe/simple_adversary_v3", f"{_MPE}.simple_adversary:SimpleAdversary", 25, None)
_builtin("mpe/simple_push_v3", f"{_MPE}.simple_push:SimplePush", 25, None)
_builtin("mpe/simple_reference_v3", f"{_MPE}.simple_reference:SimpleReference", 25, None)
_builtin(
    "mpe/simple_speaker_listener_v4",
    f"{_MPE}.simple_speaker_listener:SimpleSpeakerListener",
    25,
    None,
)
_builtin("mpe/simple_crypto_v3", f"{_MPE}.simple_crypto:SimpleCrypto", 25, None)
_builtin("mpe/simple_world_comm_v3", f"{_MPE}.simple_world_comm:SimpleWorldComm", 25, None)

# Ten rounds of ten steps.
_builtin("coin_game", f"{_MULTIAGENT}.coin_game:CoinGame", 100, None)
# The riddle has a last day of its own, which depends on how many prisoners there are.
_builtin("switch_riddle", f"{_MULTIAGENT}.switch_riddle:SwitchRiddle", None, None)
for _game in ("prisoners-dilemma", "chicken", "stag-hunt", "bach-or-stravinsky"):
    _storm = f"{_MULTIAGENT}.storm.two_players:TwoPlayerStorm"
    _builtin(f"storm/2p-{_game}", _storm, 152, None, payoff_matrix=_game)
# Of many players none is the row player, so only games in which both stand alike.
for _game in ("prisoners-dilemma", "chicken", "stag-hunt"):
    _storm = f"{_MULTIAGENT}.storm.many_players:ManyPlayerStorm"
    _builtin(f"storm/np-{_game}", _storm, 152, None, payoff_matrix=_game)

# JaxNav's episodes are 500 steps long (its `max_steps`); "4r" stands for four robots.
_NAVIGATION = f"{_MULTIAGENT}.navigation.navigation:Navigation"
_builtin("navigation/random-1r", _NAVIGATION, 500, None, robots=1)
_builtin("navigation/random-4r", _NAVIGATION, 500, None, robots=4)
_builtin("navigation/random-10r", _NAVIGATION, 500, None, robots=10)
_builtin("navigation/blank-1r", _NAVIGATION, 500, None, layout="blank")
_builtin("navigation/corridor-4r", _NAVIGATION, 500, None, layout="corridor-4")
_builtin("navigation/circle-10r", _NAVIGATION, 500, None, layout="circle-10")

# Both versions' episodes are 400 steps long; `horizon` of the first is set along with it.
_OVERCOOKED = f"{_MULTIAGENT}.overcooked"
for _layout in (
    "cramped_room",
    "asymm_advantages",
    "coord_ring",
    "forced_coord",
    "counter_circuit",
):
    _builtin(f"overcooked/{_layout}", f"{_OVERCOOKED}:Overcooked", 400, None, layout=_layout)
    _builtin(f"overcooked_v2/{_layout}", f"{_OVERCOOKED}:OvercookedV2", 400, None, layout=_layout)
for _layout in (
    "cramped_room_v2",
    "asymm_advantages_recipes_center",
    "two_rooms",
    "grounded_coord_simple",
    "grounded_coord_ring",
    "test_time_simple",
    "test_time_wide",
    "demo_cook_simple",
    "demo_cook_wide",
):
    _builtin(f"overcooked_v2/{_layout}", f"{_OVERCOOKED}:OvercookedV2", 400, None, layout=_layout)

# JaxMARL's SMAX, whose episodes are 100 steps long (its `max_steps`).
for _scenario in (
    "3m",
    "2s3z",
    "25m",
    "3s5z",
    "8m",
    "5m_vs_6m",
    "10m_vs_11m",
    "27m_vs_30m",
    "3s5z_vs_3s6z",
    "3s_vs_5z",
    "6h_vs_8z",
    "smacv2_5_units",
    "smacv2_10_units",
    "smacv2_20_units",
):
    _builtin(
        f"smax/{_scenario}",
        f"{_MULTIAGENT}.battle.environment:Battle",
        100,
        None,
        scenario=_scenario,
    )

# No game of legal moves is long: hints need tokens, which only cards give back.
_HANABI = f"{_MULTIAGENT}.hanabi.environment:Hanabi"
for _players in (2, 3, 4, 5):
    _builtin(f"hanabi/full-{_players}p", _HANABI, None, None, num_agents=_players)
# The Learning Environment's "Hanabi-Small" and "Hanabi-Very-Small".
for _size, _colors in (("small", 2), ("very_small", 1)):
    _builtin(
        f"hanabi/{_size}-2p",
        _HANABI,
        None,
        None,
        num_colors=_colors,
        hand_size=2,
        max_info_tokens=3,
        max_life_tokens=1,
    )
