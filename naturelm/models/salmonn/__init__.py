"""The SALMONN family."""
