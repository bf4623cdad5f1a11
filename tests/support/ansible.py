"""Ansible in an environment of its own, and Debian systems in folders that it reaches as if by ssh."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from scripts.embedded_kafka import data_folder, one_at_a_time

ROOT: Final = Path(__file__).resolve().parents[2]
LOCK: Final = Path(__file__).with_name("ansible.lock")
SECONDS: Final = 600.0
SSH: Final = """#!{python}
import os, sys
from pathlib import Path
sys.path.insert(0, {checkout!r})
from tests.support.debian_host import in_host
words = in_host(Path({hosts!r}) / sys.argv[-2], sys.argv[-1], SYSTEMD_OFFLINE="1")
os.execvp(words[0], words)
"""
"""In the place of ssh: its last two words are the host and the command."""


class Recap(NamedTuple):
    """What a run has done on a host."""

    changed: int
    failed: int


def programs() -> Path:
    """The folder of Ansible's programs, installed once for the versions of the lock file."""
    place = data_folder() / "ansible" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    place.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(place.with_suffix(".lock")):
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
            subprocess.run([place / "bin" / "pip", "install", "-q", "--require-hashes", "-r", LOCK], check=True)
            (place / "done").touch()
    return place / "bin"


class Control:
    """The control machine: a folder with a playbook's files. The hosts are systems in the folder ``hosts``, each by its name."""

    def __init__(self, folder: Path, hosts: Path) -> None:
        """Nothing runs yet."""
        self._folder = folder
        ssh = folder / "ssh"
        ssh.write_text(SSH.format(python=sys.executable, checkout=str(ROOT), hosts=str(hosts)))
        ssh.chmod(0o755)
        self._environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}} | {
            "ANSIBLE_SSH_EXECUTABLE": str(ssh),
            "ANSIBLE_SSH_ARGS": "",
            "ANSIBLE_SSH_TRANSFER_METHOD": "piped",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_REMOTE_USER": "root",
            "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
            "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }

    def run(self, program: str, *words: str | Path) -> str:
        """What a program of Ansible's says; fails where it fails."""
        bin_folder = programs()
        env = self._environment | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
        done = subprocess.run(
            [bin_folder / program, *words], cwd=self._folder, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
        return done.stdout + done.stderr

    def play(self, playbook: Path, *words: str) -> tuple[Mapping[str, Recap], str]:
        """Runs a playbook: what it has done by host, and all that it said."""
        return self._recaps(self.run("ansible-playbook", "--inventory", "inventory.yml", "--diff", *words, playbook))

    def typed(self, line: str) -> tuple[Mapping[str, Recap], str]:
        """Runs a page's command line, whose paths are those of the checkout."""
        program, *words = shlex.split(line, comments=True)
        assert program == "ansible-playbook"
        return self._recaps(self.run(program, *(ROOT / word if word.startswith("deploy/") else word for word in words)))

    @staticmethod
    def _recaps(told: str) -> tuple[Mapping[str, Recap], str]:
        lines = re.findall(r"^(\S+) +: .*changed=(\d+) +unreachable=\d+ +failed=(\d+)", told, re.MULTILINE)
        return {host: Recap(int(changed), int(failed)) for host, changed, failed in lines}, told
