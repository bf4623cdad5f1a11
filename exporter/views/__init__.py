"""What people and programs see of the fleet: rates, flags, sorting, filtering, paging, events. Pure."""
