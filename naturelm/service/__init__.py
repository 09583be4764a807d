"""A model behind HTTP on this machine, for harnesses and tools that put questions to it."""
