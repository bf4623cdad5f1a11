"""The samples of many VMs at once, in columns: messages wait together, are read together and rendered together."""
