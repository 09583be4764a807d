"""What embeddings are kept for: search by sound, and probes that are trained on a few reviews."""
