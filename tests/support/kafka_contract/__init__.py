"""What Kafka and its client do, as tests that run on a real broker (layer integration) and on the in-memory one (layer contract).

A test class here takes a fixture ``bus``; ``tests/contract/test_kafka_contract.py`` and ``tests/integration/test_kafka_contract.py`` bring one each.
"""
