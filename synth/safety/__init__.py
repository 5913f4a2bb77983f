"""Safety data: the hazard categories, what an answer does about a request, and many-shot contexts."""
