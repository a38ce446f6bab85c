"""Files that the paper's authors released, read into this project's formats: one module per kind of file.

Names, shapes and nesting are those of their code (sail-sg/finetune-fair-diffusion, commit aa65cbd).
"""
