"""Sounds, nights and a stand-in model, all made by code."""
