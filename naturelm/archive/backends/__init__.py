"""Where the job's stages run: in this process, or on Ray."""
