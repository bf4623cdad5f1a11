"""The long history of a VM: what a history server is asked, with which limits, and its answers as evenly spaced values."""
