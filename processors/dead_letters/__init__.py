"""Messages that can't be decoded: what is kept of each, and when there are too many. Pure, except for ``senders``."""
