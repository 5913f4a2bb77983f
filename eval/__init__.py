"""Evaluation: held-out answers, graded; statistics; the gate of a round."""
