"""What an output directory holds, written and read; nothing else knows its file names and schemas."""
