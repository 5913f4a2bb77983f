"""Reasoning: a taxonomy of skills, and solutions that are checked and corrected."""
