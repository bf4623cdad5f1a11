"""The commands. The only package that may put the others together."""
