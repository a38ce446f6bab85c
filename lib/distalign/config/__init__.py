"""What is run: the models of config.yaml and presets, their checks, and the specifications made from them. No torch."""
