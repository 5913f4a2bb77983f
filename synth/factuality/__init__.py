"""The knowledge probe: what a model knows, by the grades of its answers."""
