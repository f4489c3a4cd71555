"""The models behind the ids: where the weights of each can be had, and which ones exactly, if they do not come with the package."""

from __future__ import annotations

from dataclasses import dataclass

from dreamgym.errors import ModelNotFoundError
from dreamgym.hub.repository import Repo

__all__ = ["ROWS", "Row", "published"]


@dataclass(frozen=True)
class Row:
    """A model by name. revision is the commit that its id stands for, for ever; None until it is published.

    config_sha256 is of its config.json, which vouches for its other files.
    """

    repo: str
    config_sha256: str
    revision: str | None = None


# Better weights get a new row and an id that ends in -v1: what an id dreams never changes.
ROWS = {
    "CarRacing": Row("dreamgym/dream-car-racing", "848edabdc613ce81607cbcdc7cd7222f4ee103c8149c6f56411285dc71035e69"),
    "CartPole": Row("dreamgym/dream-cart-pole", "1a999db006155d1a41fe79f105c8cb42e084d9da6c4414dbbe3c3ca258af8272"),
    "CartPoleBalance": Row("dreamgym/dream-cart-pole-balance", "77b002eba4055ad79f387d7bc21bb0022704eb345fa8fb2b0a8847bada11eb91"),
    "CartPoleSwingup": Row("dreamgym/dream-cart-pole-swingup", "c936bcb5b23cea235ac4cfb1a6a254324972976ba786ebcf9e17379dc07df604"),
    "DoomTakeCover": Row("dreamgym/dream-doom-take-cover", "69e66d079f7ab0c886d887a1645eb0d245404c37349fce7061287e0373dcb5a9"),
    "Pendulum": Row("dreamgym/dream-pendulum", "422c9292a18fb1e4d7e11f251f7f1e451c6322277954ba0c87f36311949957b5"),
}


def published(name: str) -> Repo:
    """The commit that a name stands for. Raises ModelNotFoundError for a name that is on the Hub under no commit yet."""
    row = ROWS[name]
    if row.revision is None:
        raise ModelNotFoundError(
            f"the model '{name}' did not come with this installation, and '{row.repo}' is not published yet: its row in "
            f"dreamgym/hub/registry.py names no revision. Install a wheel of dreamgym that holds it, or name another model."
        )
    return Repo(row.repo, row.revision)
