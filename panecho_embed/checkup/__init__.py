"""Can this machine run `extract`, how fast, and what is missing: what `panecho-embed doctor` says."""
