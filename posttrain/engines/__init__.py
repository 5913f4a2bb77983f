"""Engines: what turns prompts into completions, and the loading of models."""

from posttrain.engines.protocol import Completion, Engine, Request, Sampling, open_engine

__all__ = ["Completion", "Engine", "Request", "Sampling", "open_engine"]
