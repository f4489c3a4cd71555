"""Whom to thank: papers behind presets, and the licences of worlds that models dream of."""

from __future__ import annotations

import re
from typing import Any

import gymnasium

__all__ = ["CITATIONS", "citation", "world_license"]

_PLANET = """@inproceedings{hafner2019planet,
  title = {Learning Latent Dynamics for Planning from Pixels},
  author = {Hafner, Danijar and Lillicrap, Timothy and Fischer, Ian and Villegas, Ruben and Ha, David and Lee, Honglak and Davidson, James},
  booktitle = {International Conference on Machine Learning},
  year = {2019},
  eprint = {1811.04551},
  archivePrefix = {arXiv}
}"""
_DREAMER_V1 = """@inproceedings{hafner2020dreamer,
  title = {Dream to Control: Learning Behaviors by Latent Imagination},
  author = {Hafner, Danijar and Lillicrap, Timothy and Ba, Jimmy and Norouzi, Mohammad},
  booktitle = {International Conference on Learning Representations},
  year = {2020},
  eprint = {1912.01603},
  archivePrefix = {arXiv}
}"""
_DREAMER_V2 = """@inproceedings{hafner2021dreamerv2,
  title = {Mastering Atari with Discrete World Models},
  author = {Hafner, Danijar and Lillicrap, Timothy and Norouzi, Mohammad and Ba, Jimmy},
  booktitle = {International Conference on Learning Representations},
  year = {2021},
  eprint = {2010.02193},
  archivePrefix = {arXiv}
}"""
_DREAMER_V3 = """@article{hafner2023dreamerv3,
  title = {Mastering Diverse Domains through World Models},
  author = {Hafner, Danijar and Pasukonis, Jurgis and Ba, Jimmy and Lillicrap, Timothy},
  year = {2023},
  eprint = {2301.04104},
  archivePrefix = {arXiv}
}"""
_WORLD_MODELS = """@article{ha2018worldmodels,
  title = {World Models},
  author = {Ha, David and Schmidhuber, J{\\"u}rgen},
  year = {2018},
  eprint = {1803.10122},
  archivePrefix = {arXiv}
}"""

# By the name of the preset; those that bear no paper's name have none.
CITATIONS = {
    "planet": _PLANET,
    "dreamer-v1": _DREAMER_V1,
    "dreamer-v2": _DREAMER_V2,
    "dreamer-v3": _DREAMER_V3,
    "world-models": _WORLD_MODELS,
    "world-models-fast": _WORLD_MODELS,
}

_WORLDS = (  # of the code; pictures and sounds may have others'
    (r"dm_control/.+", "dm_control is Apache-2.0."),
    (r"ALE/.+", "The Arcade Learning Environment is GPL-2.0; the games belong to others and come without a licence."),
    (r"Vizdoom.+", "ViZDoom's code is MIT; the pictures are those of the game files it ran."),
)


def citation(preset: str | None) -> str | None:
    """BibTeX of the paper whose preset made a model; None for presets that bear no paper's name, and for names of strangers."""
    return CITATIONS.get(preset) if preset is not None else None


def world_license(env_id: str) -> str:
    """A sentence about the licence of an environment, looked up by its id as text: nothing is made or imported."""
    for pattern, sentence in _WORLDS:
        if re.fullmatch(pattern, env_id):
            return sentence
    known: Any = gymnasium.registry.get(env_id)
    if known is not None and str(known.entry_point).startswith("gymnasium.envs."):
        return "Gymnasium is MIT."
    return "Its licence is not known to dreamgym: ask its authors."
