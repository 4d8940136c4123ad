"""Videos -> embeddings: decoding in workers, encoding where the model is."""
