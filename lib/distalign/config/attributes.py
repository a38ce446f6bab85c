"""The attributes a face classifier reads, and their classes in the one order used everywhere.

They are perceived attributes: what a classifier says of a picture. Two genders and four groups are the paper's
limits (section 5), not statements about people.
"""

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gender": ("female", "male"),
    "race": ("wmelh", "asian", "black", "indian"),
    "age": ("young", "old"),
}
# The word a prompt says for a class. "white" stands for the paper's group of white, Middle Eastern and Latino-Hispanic
# perceived faces (wmelh).
WORDS: dict[str, dict[str, str]] = {
    "gender": {"female": "female", "male": "male"},
    "race": {"wmelh": "white", "asian": "asian", "black": "black", "indian": "indian"},
    "age": {"young": "young", "old": "old"},
}
READER = "reader"  # the independent reader's name among the classifiers
