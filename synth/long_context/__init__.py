"""Long documents: reading, cutting, surrounding them with others, and what can be asked of them."""
