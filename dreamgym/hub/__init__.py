"""Keeping and sharing models: folders of data that a stranger's machine can load without trusting us."""

from dreamgym.hub import bundle, sharing
from dreamgym.models import world_model

__all__ = ["bundle", "sharing"]

# WorldModel lies below this layer, so what it keeps and shares itself with receives its functions from here.
world_model._BUNDLE_DOOR.update(save=bundle.save, from_pretrained=bundle.from_pretrained, push=sharing.push_model)
