"""The embedded default: a rendered world with known truth, and the small models trained on it."""
