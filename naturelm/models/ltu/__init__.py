"""The LTU family."""
