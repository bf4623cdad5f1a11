"""Pages of one thing beside the fleet's lists: a VM's long history and a node, and where they link to."""
