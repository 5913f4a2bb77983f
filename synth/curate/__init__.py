"""Curation: stages that clean, thin and label the rows of a round; each keeps what it left out, with the reason."""
