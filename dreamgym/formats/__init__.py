"""How anything of ours lies on disk: strict JSON, typed configs, spaces, tensors and plain files; data only, refused unless exact."""
