"""Where waking and dreaming meet: `fit`, its presets, and what it learns with."""
