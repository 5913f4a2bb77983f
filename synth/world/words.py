"""The closed sets of the world. Every member is met in training; only their combinations are held out."""

NAMES = (
    "Anna Ben Carla David Emma Felix Grace Hugo Ida Jonas Karla Leo Mia Nora Oscar Paul Rosa Sara Tom Vera Walter Yara"
    " Zoe Max"
).split()
CITIES = (
    "Paris London Berlin Rome Madrid Lisbon Vienna Oslo Dublin Athens Delhi Bangkok Tokyo Cairo Lima Boston Denver"
    " Geneva Milan Porto Munich Lyon Seville Turin"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
WORDS = (
    "amber river stone apple cloud silver garden paper candle forest bridge window button pocket mirror feather ladder"
    " basket pepper violet copper marble orange winter summer castle engine needle planet rocket saddle tunnel velvet"
    " walnut anchor barrel"
).split()
KEYS = (
    "Falcon Otter Badger Tiger Raven Panda Zebra Moose Eagle Camel Koala Lynx Heron Bison Gecko Hippo Jaguar Lemur"
    " Mole Newt Owl Puma Quail Rhino Seal Toad Viper Whale Yak Crane Dingo Finch"
).split()
ROOMS = "kitchen bedroom bathroom office hall attic cellar garage".split()
UNITS = "celsius fahrenheit".split()
CURRENCIES = "euro dollar pound yen rupee franc".split()
