"""Settings of the archive job: what they are, and reading them from a file."""
