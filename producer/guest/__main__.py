"""The process apart's entry point: ``python -m virtflow.producer.guest PARENT``, started by ``supervise.py``."""

from virtflow.producer.guest.process import main

main()
