"""Processes of ours that have a child process: how it is started and what it may take, and the frames that travel between the two."""
