"""``virtflow check`` and ``virtflow doctor``: what is wrong, and how to fix it."""
