"""Capability pipelines: `NAME.py` with `make(work)`, `NAME_spec.py` with `PIPELINE`. See docs/synthesis.md."""
