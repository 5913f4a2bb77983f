"""What requests are about, so that a teacher who is asked a thousand times does not say the same."""

SUBJECTS = (
    "cooking", "gardening", "a school project", "personal finance", "running a shop", "travel by train", "astronomy",
    "birdwatching", "a wedding", "a sports club", "energy at home", "a bicycle trip", "local history", "music practice",
    "chess", "weather records", "a fish tank", "photography", "a small farm", "road traffic", "a library", "a charity",
    "language learning", "hiking", "medicine in daily life", "a newspaper", "a museum", "board games", "a harbour",
    "film", "pottery", "an election", "genealogy", "a bakery", "exercise", "recycling", "a housing co-operative",
    "geology", "a call centre", "warehouse stock", "poetry", "a physics lab", "customer reviews", "crime novels",
    "a hospital ward", "beekeeping", "tax", "a theatre", "insects", "a software team", "insurance", "tea and coffee",
)  # fmt: skip
