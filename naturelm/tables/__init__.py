"""Reading the tables that the archive job writes."""
