"""The web app: ask about sounds, explore results."""
