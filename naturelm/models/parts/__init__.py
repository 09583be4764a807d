"""Building blocks that model families are assembled from."""
