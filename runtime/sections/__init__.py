"""The sections of the settings, a module for each part: what a setting is called, its type, bounds, switch and help."""
