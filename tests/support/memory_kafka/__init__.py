"""An in-memory Kafka: the part of the Python client's surface that virtflow uses, with brokers that go away, refuse and lose.

    cluster = Cluster()
    cluster.create("vm.metrics", 2)
    publisher = Publisher(settings, make=cluster.producer)      # in the place of confluent_kafka.Producer
    feed = Feed(settings, ..., consumer=cluster.consumer, admin=cluster.admin)
    cluster.stop()                                              # from now on nothing answers
    cluster.refuse("vm.metrics", KafkaError.NOT_ENOUGH_REPLICAS)

``log`` is a partition, ``cluster`` the broker, ``groups`` its consumer groups, ``producer``, ``consumer`` and ``admin`` the client's classes.
Records, errors and places are the client's own (``Message``, ``KafkaError``, ``TopicPartition``). Nothing takes time: ``consume`` returns as soon
as there is something, where the real one gathers for as long as it may. The suite ``tests.support.kafka_contract`` runs on this and on a real
broker: where the two differ, this is wrong.
"""

from tests.support.memory_kafka.cluster import Cluster

__all__ = ["Cluster"]
