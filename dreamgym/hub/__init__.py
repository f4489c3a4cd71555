"""Keeping and sharing models: folders of data that a stranger's machine can load without trusting us."""

from dreamgym.hub import bundle
from dreamgym.models import world_model

__all__ = ["bundle"]

# WorldModel lies below this layer, so its save_pretrained and from_pretrained receive their functions from here.
world_model._BUNDLE_DOOR.update(save=bundle.save, from_pretrained=bundle.from_pretrained)
