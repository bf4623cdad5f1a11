"""What libvirt does, as tests that run on a real daemon (layer lab) and on the in-memory one (layer contract).

A test class here takes a fixture ``host``; ``tests/contract/test_libvirt_contract.py`` and ``tests/lab/test_libvirt_contract.py`` bring one each.
"""
