"""The Debian packages on bare systems of their releases: what is in them, and their life from installation to purge, without a network.

They are built, which takes minutes: with ``--long`` alone.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.debian_packages import PACKAGES, RELEASES, Package, units_of
from tests.support.debian_host import DebianHost, built_packages, next_build

LISTS = Path(__file__).parent / "data" / "packages"
MORE = 1.1
"""A package may be so much larger than its list says before somebody has to look at it."""
METRIC = re.compile(r'^vm_state\{uuid="6695eb01-f6a4-8304-79aa-97f2502e193f",name="test"\} \d', re.MULTILINE)
"""Of the one VM that libvirt's test driver has."""

Built = dict[str, Path]


@pytest.fixture(scope="module", params=list(RELEASES))
def release(request: pytest.FixtureRequest) -> str:
    """Each release that packages are made for."""
    return str(request.param)


@pytest.fixture(scope="module")
def built(release: str) -> Built:
    """Both packages of a release by their names."""
    return built_packages(release)


@pytest.fixture
def host(release: str, built: Built, tmp_path: Path) -> DebianHost:
    """A bare system with what the packages need from Debian; what is only suggested is not there."""
    host = DebianHost(release, tmp_path / release)
    host.fetch(*built.values())
    return host


def listed(package: Path) -> Iterator[str]:
    """What a package holds, a line each: mode, owner, path and target; of Python packages the folder alone."""
    lines = subprocess.run(["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True).stdout.splitlines()
    seen = set()
    for line in lines:
        mode, owner, _, _, _, path = line.split(maxsplit=5)
        inside = re.match(r"(\./usr/lib/virtflow/\w+/lib/python3\.\d+/site-packages/[^/ ]+/)", path)
        seen.add(f"{mode[0]} {owner} {inside[1]}" if inside else f"{mode} {owner} {path}")
    return iter(sorted(line for line in seen if "/__pycache__/" not in line))


@pytest.mark.parametrize("name", PACKAGES)
def test_what_is_in_a_package(release: str, built: Built, name: str) -> None:
    """The committed list says it, and about how large it is; a new file or a bigger package is seen in a review."""
    page = LISTS / f"{name}.{release}.list"
    head, *expected = page.read_text().splitlines()
    package, installed = (int(number) for number in re.findall(r"(\d+) KiB", head))
    told = subprocess.run(["dpkg-deb", "--field", built[name], "Installed-Size"], capture_output=True, text=True, check=True).stdout
    assert list(listed(built[name])) == expected
    assert built[name].stat().st_size / 1024 < package * MORE
    assert int(told) < installed * MORE


def findings(host: DebianHost, *words: str) -> dict[str, str]:
    """What ``virtflow check`` finds wrong, by its thing."""
    told = json.loads(host.result(" ".join(["virtflow check --json", *words])).stdout)
    return {one["thing"]: one["detail"] for one in told["findings"] if not one["ok"]}


@pytest.mark.parametrize("name", PACKAGES)
def test_the_life_of_a_package(host: DebianHost, built: Built, name: str, tmp_path: Path) -> None:
    """Installed, used, upgraded, taken back, removed and purged: what an administrator wrote stays until the purge, and then nothing does."""
    (host.root / "etc/credstore").mkdir(exist_ok=True)
    package, before = PACKAGES[name], host.files()
    host.install(built[name])
    assert host.run("virtflow --version") == "virtflow 0.1.0\n"
    assert "virtflow producer" in host.run("virtflow producer --help")
    _is_installed_and_not_enabled(host, package)
    # On a system without anything else broker and libvirt are missing; packages of parts that are not installed are not asked for.
    assert set(findings(host)) == {"broker", "libvirt"}
    host.write("etc/virtflow/virtflow.toml", '[kafka]\nbootstrap_servers = "kafka:9093"\n')
    host.write(f"etc/virtflow/{package.parts[0]}.toml", '[log]\nlevel = "debug"\n')
    host.write(f"etc/credstore/virtflow-{package.parts[0]}.kafka.sasl_password_file", "secret")
    newer = next_build(built[name], tmp_path)
    host.install(newer)
    assert version(host, name).partition("-")[2].startswith("2~")
    host.install(built[name], options="--allow-downgrades")
    assert version(host, name).partition("-")[2].startswith("1~")
    assert host.run(f"virtflow config show --for {package.parts[0]}").count("debug") == 1
    host.run(f"apt-get -q -y remove {name}")
    assert host.result("virtflow --version").returncode == 127
    assert host.text(f"etc/virtflow/{package.parts[0]}.toml") == '[log]\nlevel = "debug"\n'
    host.run(f"apt-get -q -y purge {name}")
    assert host.files() - before == set()
    for file in ("etc/passwd", "etc/group", "etc/shadow"):
        assert "virtflow" not in host.text(file), file


def version(host: DebianHost, name: str) -> str:
    return host.run(f"dpkg-query --show --showformat '${{Version}}' {name}")


def _is_installed_and_not_enabled(host: DebianHost, package: Package) -> None:
    """Users, folders, pages and units are there; nothing is started at a boot."""
    for part in package.parts:
        assert host.run(f"id -nG virtflow-{part}").split() == [f"virtflow-{part}", "virtflow"]
    assert host.run("stat -c '%U %a' /var/lib/virtflow") == "root 755\n"
    for unit in units_of(package):
        state = host.result(f"systemctl is-enabled {unit.name}").stdout.strip()
        assert state == "disabled", unit.name
    for page in ("man1/virtflow.1.gz", "man5/virtflow.toml.5.gz"):
        assert (host.root / "usr/share/man" / page).is_symlink()


def test_a_first_metric_of_a_hypervisor(host: DebianHost, built: Built) -> None:
    """With the producer's package alone, and Debian's binding of libvirt."""
    host.install(built["virtflow-producer"])
    assert METRIC.search(host.run("virtflow snapshot --connect test:///default --format prom"))
    assert findings(host, "--for producer --connect test:///default").keys() == {"broker"}
    parts = json.loads(host.run("virtflow version --json"))["parts"]
    assert parts["libvirt-python"] is not None
    assert "packages" in findings(host, "--for exporter")


def test_both_on_one_host(host: DebianHost, built: Built) -> None:
    """Each has its own environment; the command is the centre's, which knows everything, and the producer's where it is alone."""
    host.install(*built.values())
    assert host.run("readlink -f /usr/bin/virtflow").strip() == "/usr/lib/virtflow/centre/bin/virtflow"
    assert findings(host, "--for node --connect test:///default") == {}
    host.run("apt-get -q -y purge virtflow-centre")
    assert host.run("readlink -f /usr/bin/virtflow").strip() == "/usr/lib/virtflow/producer/bin/virtflow"
    assert METRIC.search(host.run("virtflow snapshot --connect test:///default --format prom"))
    assert "virtflow" in host.text("etc/group")
