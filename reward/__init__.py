"""Candidates → scores → choices: sampling, annotation, the reward model, scoring, selection."""
