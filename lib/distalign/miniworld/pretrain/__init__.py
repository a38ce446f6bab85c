"""Training of the mini world's own small models; the results are shipped in resources/miniworld."""
