"""The archive job: from an archive of recordings to tables of answers."""
