"""What a newcomer asks, and where the answer is: docs/where.md is made of this table, and a test holds that the map leads there.

Each row is (question, path, something that stands in the file there). A path must be found from docs/architecture.md in two steps: a
page, file or folder that it names, then one that is named or lies there.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tools.documents import NOTICE, table


class Question(NamedTuple):
    """A question, the path that answers it, and a name in that file which shows that it does."""

    text: str
    path: str
    shows: str


QUESTIONS: Final = tuple(
    Question(*row)
    for row in (
        ("Where is libvirt asked for all VMs at once?", "producer/hypervisor/queries.py", "ask_everyone"),
        ("Which libvirt calls can wait for a VM, by version?", "producer/hypervisor/call_safety.py", "Safety("),
        ("How many calls may hang on a host, and who counts them?", "producer/hung_calls/budget.py", "class CallBudget"),
        ("Where are the daemons of KubeVirt's pods found, and their rounds merged?", "producer/daemons/sampler.py", "class DaemonsSampler"),
        ("What decides which VMs' monitors are asked?", "producer/hung_calls/breaker.py", "class Breaker"),
        ("Where is the domain XML parsed?", "producer/records/domain_xml.py", "ET.fromstring"),
        ("Where do libvirt's values become the fields of a record?", "producer/records/vm_snapshot.py", "def vm_snapshot"),
        ("Where are events kept while the broker is away?", "producer/publishing/journal.py", "class Journal"),
        ("Where is what a guest's agent says checked?", "producer/agent/answers.py", "def sample_of"),
        ("Where are VMs simulated?", "producer/simulator/fleet.py", "def vms_at"),
        ("Where do libvirt's units become base units?", "processors/normalise.py", "def normalise_snapshot"),
        ("When is a message acknowledged?", "processors/delivery.py", "class Delivery"),
        ("What becomes of a message that can't be decoded?", "processors/dead_letters/dead_letter.py", "VALUE_BYTES"),
        ("Where is faust?", "processors/app.py", "faust.App"),
        ("Where do two hosts' events become one migration?", "processors/migrations/reducer.py", "VmMigration"),
        ("What decides which host's sample counts?", "schemas/ownership.py", "def authoritative"),
        ("What tells a newer message from an older one?", "schemas/order.py", "def freshness"),
        ("Where are topics declared?", "schemas/topics.py", "SNAPSHOTS"),
        ("Where are the records that travel on the topics?", "schemas/records.py", "class VmMetrics"),
        ("Where do I add a metric of a VM?", "schemas/catalogue/vm.py", "Metric("),
        ("Where do I add a setting?", "runtime/sections/producer.py", "class Producer"),
        ("Where do I add an alert?", "deploy/prometheus/alerts.yml", "VirtflowVmStuck"),
        ("Where do I add a panel to a dashboard?", "tools/dashboards/fleet.py", "def board"),
        ("Where are the settings of every Kafka client?", "runtime/kafka/clients.py", "def client_settings"),
        ("When do a VM's series vanish?", "exporter/fleet.py", "class Fleet"),
        ("Where are many samples read at once, in columns?", "exporter/columns/batch.py", "class Batch"),
        ("When do samples wait for each other?", "exporter/columns/intake.py", "class Intake"),
        ("Where is the text of a scrape joined?", "exporter/exposition.py", "def exposition"),
        ("Where are the rates of the fleet page computed?", "exporter/views/fleet_view.py", "class FleetView"),
        ("Where does a change become an event of the API?", "exporter/views/changes.py", "class Changes"),
        ("Where do I add a field to the API?", "exporter/views/rows.py", "class VmRow"),
        ("Where does a counter become a rate for Kubernetes?", "adapter/samples/rates.py", "def rates"),
        ("Where are rows and offsets committed together?", "history/storage/delta.py", "def commit"),
        ("Where do samples become hours and days?", "history/maintenance/rollup.py", "def hours_of"),
        ("Where are Prometheus' remote_read messages parsed?", "history/remote_read/protocol/wire.py", "def read_request"),
        ("Where is a command's error printed?", "cli/main.py", "def run"),
        ("How do I make a hung libvirt in a test?", "tests/support/memory_libvirt", "class"),
        ("What does a word mean here?", "docs/glossary.md", "authoritative node"),
    )
)


def questions_page() -> str:
    """``docs/where.md``."""
    rows = [(question.text, f"[{question.path}](../{question.path})") for question in QUESTIONS]
    text = (
        "Questions of somebody who sees the code for the first time. Each place is also found from [the map](architecture.md) in two steps."
    )
    return "\n\n".join([NOTICE, "# Where is ...?", text, table(("question", "look into"), rows)]) + "\n"
