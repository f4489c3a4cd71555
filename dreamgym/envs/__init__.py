"""Real worlds: any gymnasium env, preprocessed in a way that can be written down and repeated."""

from dreamgym.envs.make import DEFAULT_PREPROCESS, make_env, make_from_spec, make_spec
from dreamgym.envs.preprocess import PreprocessedEnv, applied, preprocess
from dreamgym.envs.take_cover import TakeCover, make_take_cover

__all__ = [
    "DEFAULT_PREPROCESS",
    "PreprocessedEnv",
    "TakeCover",
    "applied",
    "make_env",
    "make_from_spec",
    "make_spec",
    "make_take_cover",
    "preprocess",
]
