"""The NatureLM-audio family."""
