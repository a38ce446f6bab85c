"""Tables and figures, in one style, each with the numbers it shows beside it."""
