"""The helper process's entry point: ``python -m virtflow.producer.agent PARENT``, started by ``supervisor.py``."""

from virtflow.producer.agent.worker import main

main()
