"""Errors that are shown to users without a traceback."""


class UserError(Exception):
    """Says which file or key is wrong, what was found, and what to do."""
