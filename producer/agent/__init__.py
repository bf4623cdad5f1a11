"""What only the guest knows, asked of its agent by the helper process.

An agent is the tenant's: it answers anything, slowly or never, and what it answers can take libvirtd down. So the calls are made by
a separate process (``worker.py``, started by ``supervisor.py``) with the only connection that may write; it holds no state, decides
nothing and may die at any time. The producer decides (``scheduler.py``, pure): whom to ask what and when. What comes back is cleaned
where it arrives (``answers.py``, pure), travels over a pipe (``ipc.py``), is held while it is fresh (``cache.py``, pure) and joins
the node's snapshots.
"""
