"""Planning, running and committing the archive job."""
