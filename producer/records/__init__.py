"""Pure: from libvirt's answers to the fields of records."""
