"""Training of the model `fast` on the answers of the default model; see README.md."""
