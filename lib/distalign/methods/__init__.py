"""The competing methods, one file each, behind two verbs.

`fit(world, settings, target)` returns what a method learns, as tensors by name; a file without it has nothing to fit.
`apply(world, settings, target, fitted)` returns the `Intervention` that samples with it. Settings, their defaults and
what else is known of a method stand in `distalign.config.methods`.
"""
