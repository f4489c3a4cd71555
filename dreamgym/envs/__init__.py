"""Real worlds: any gymnasium env, preprocessed in a way that can be written down and repeated."""

from dreamgym.envs.atari import Atari, make_atari
from dreamgym.envs.dm_control import PLANET_ACTION_REPEAT, DMControlEnv, planet_action_repeat, register_dm_control
from dreamgym.envs.make import DEFAULT_PREPROCESS, default_preprocess, make_env, make_from_spec, make_spec
from dreamgym.envs.preprocess import PreprocessedEnv, applied, preprocess
from dreamgym.envs.take_cover import TakeCover, make_take_cover

__all__ = [
    "DEFAULT_PREPROCESS",
    "PLANET_ACTION_REPEAT",
    "Atari",
    "DMControlEnv",
    "PreprocessedEnv",
    "TakeCover",
    "applied",
    "default_preprocess",
    "make_atari",
    "make_env",
    "make_from_spec",
    "make_spec",
    "make_take_cover",
    "planet_action_repeat",
    "preprocess",
    "register_dm_control",
]
