"""Faces: detection, differentiable crops and alignment, face embedding, bank of real faces."""
