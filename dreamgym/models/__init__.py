"""World models: an encoder, a core that remembers and foretells, heads that read it, and what they learn from."""
