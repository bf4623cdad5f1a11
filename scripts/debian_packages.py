"""Debian packages of virtflow: for each a Python environment of its own below /usr/lib/virtflow, made in a root of the release.

    packages = build("bookworm", folder)        # virtflow-producer_0.1.0-1~deb12_amd64.deb and virtflow-centre_...

- **/usr/lib/virtflow, not /opt**: /opt is the administrator's, so that an environment made there by hand and a package do not meet.
- **An environment of its own**: the versions of the lock file, whatever Debian's own Python packages are, on Debian's interpreter.
  libvirt's binding alone is Debian's (python3-libvirt, as links), because it is the one package that would need a compiler.
- **Two packages, side by side**: each has all that it runs; /usr/bin/virtflow is an alternative, the centre's where both are installed.

Everything is compiled at build time; pip finds wheels only. Needs root and debootstrap.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts import debian_root
from scripts.embedded_kafka import data_folder, one_at_a_time

ROOT: Final = Path(__file__).resolve().parent.parent
DEPLOY: Final = ROOT / "deploy"
SAMPLE_PROGRAM: Final = "/opt/virtflow/bin/virtflow"
"""The program in the units of the checkout."""
DIST_PACKAGES: Final = "usr/lib/python3/dist-packages"
BINDING: Final = ("libvirt.py", "libvirt_qemu.py", "libvirtmod.*.so", "libvirtmod_qemu.*.so", "libvirt_python-*-info")
"""What is linked of python3-libvirt."""
NOT_RUN: Final = ("confluent_kafka/avro", "confluent_kafka/aio", "confluent_kafka/kafkatest", "confluent_kafka/schema_registry")
"""Parts of the packages that no module of ours imports."""
DOCUMENTS: Final = ("deploy.md", "install-fleet.md", "secure.md", "upgrade.md", "settings.md")
COMPRESSION: Final = ("-Zzstd", "-z10")
"""dpkg reads it from Debian 12 on; xz would take minutes for half a gigabyte of libraries."""
SCRIPTS: Final = ("postinst", "prerm", "postrm")


@dataclass(frozen=True, slots=True)
class Release:
    """A Debian release that packages are made for."""

    name: str
    number: int
    python: tuple[int, int]


RELEASES: Final = {each.name: each for each in (Release("bookworm", 12, (3, 11)), Release("trixie", 13, (3, 13)))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What one package holds."""

    name: str
    lock: str
    parts: tuple[str, ...]
    """Parts that it starts: each has a unit, a user and a settings file."""
    samples: tuple[str, ...]
    """Settings files, by the names that ``config sample --for`` knows."""
    priority: int
    other: str
    about: str
    depends: tuple[str, ...]
    suggests: tuple[str, ...] = ()

    @property
    def home(self) -> str:
        """Its environment, from the root."""
        return f"usr/lib/virtflow/{self.name.removeprefix('virtflow-')}"


PACKAGES: Final = {
    each.name: each
    for each in (
        Package(
            name="virtflow-producer",
            lock="requirements-producer.lock",
            parts=("producer",),
            samples=("producer",),
            priority=10,
            other="virtflow-centre",
            about="metrics of this hypervisor's virtual machines to Kafka",
            depends=("python3-libvirt",),
        ),
        Package(
            name="virtflow-centre",
            lock="requirements.lock",
            parts=("processors", "exporter", "history", "node"),
            samples=("processors", "exporter", "history", "node"),
            priority=20,
            other="virtflow-producer",
            about="metrics of a fleet of virtual machines: processors, exporter, history",
            depends=(),
            suggests=("python3-libvirt", "prometheus"),
        ),
    )
}


def build(release_name: str, folder: Path, names: tuple[str, ...] = tuple(PACKAGES), revision: int = 1) -> list[Path]:
    """Builds the packages ``names`` for a release into ``folder``; raises ``RootError`` with what a step said."""
    release = RELEASES[release_name]
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / f"work-{release.name}"
    shutil.rmtree(work, ignore_errors=True)
    root = _build_root(release, work)
    built = [_package(PACKAGES[name], release, work, revision) for name in names]
    assert root.exists()
    shutil.rmtree(work)
    return built


def bare_root(release: str) -> Path:
    """The minimal system of a release, made once for each checkout; copy it before you change anything."""
    place = data_folder() / "roots" / f"bare-{release}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(place.with_name(f"{place.name}.lock")):
        if not place.exists():
            part = place.with_name(f"{place.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            debian_root.bootstrap(release, part)
            part.rename(place)
    return place


def copy_root(source: Path, target: Path) -> Path:
    """A copy of a root file system that can be changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    debian_root.run(["cp", "-a", "--reflink=auto", str(source), str(target)])
    return target


def _build_root(release: Release, work: Path) -> Path:
    """A root of the release with pip, the source of the commit that is checked out, and its wheel."""
    root = copy_root(bare_root(release.name), work / "root")
    debian_root.install(root, ["python3", "python3-venv", "python3-pip", "python3-libvirt"])
    source = root / "src"
    source.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    _in(root, "pip install -q --no-compile --target /build --require-hashes -r /src/requirements-build.lock")
    _in(root, "PYTHONPATH=/build pip wheel -q --no-build-isolation --no-deps --wheel-dir /wheels /src")
    return root


def _in(root: Path, command: str) -> str:
    """Runs a command in the root with this machine's settings of pip."""
    client = {name: value for name, value in os.environ.items() if name.startswith("PIP_") and name != "PIP_FIND_LINKS"}
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return debian_root.in_root(root, command, environment | client | {"SOURCE_DATE_EPOCH": str(commit_time())})


def _package(package: Package, release: Release, work: Path, revision: int) -> Path:
    root, stage = work / "root", work / package.name
    _environment(package, root)
    (stage / package.home).parent.mkdir(parents=True)
    debian_root.run(["cp", "-a", str(root / package.home), str(stage / package.home)])
    _configuration(package, root, stage)
    _system_files(package, root / "src", stage)
    _control(package, release, stage, revision)
    file = work.parent / f"{package.name}_{debian_version(release, revision)}_{_architecture()}.deb"
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(commit_time())}
    debian_root.run(["dpkg-deb", "--root-owner-group", *COMPRESSION, "--build", str(stage), str(file)], environment)
    return file


def _environment(package: Package, root: Path) -> None:
    """The package's Python environment, at its place in the root, compiled and without what does not run."""
    home, lock = f"/{package.home}", root / "package.lock"
    lock.write_text(without_binding((root / "src" / package.lock).read_text()))
    pip = f"pip --python {home}/bin/python install -q --no-compile"
    _in(root, f"python3 -m venv --without-pip {home}")
    _in(root, f"{pip} --only-binary :all: --require-hashes -r /package.lock && {pip} --no-deps --no-index /wheels/*.whl")
    (site,) = (root / package.home).glob("lib/python3.*/site-packages")
    _prune(root / package.home, site)
    _in(root, f"python3 -m compileall -q --invalidation-mode unchecked-hash /{site.relative_to(root)}")
    for name in (name for pattern in BINDING for name in sorted((root / DIST_PACKAGES).glob(pattern))):
        (site / name.name).symlink_to(f"/{DIST_PACKAGES}/{name.name}")
    # Debian may bring another version: the hash of the source is looked at, so that an older one is not used.
    links = " ".join(f"/{site.relative_to(root)}/{name}" for name in ("libvirt.py", "libvirt_qemu.py"))
    _in(root, f"python3 -m compileall -q --invalidation-mode checked-hash {links}")


def without_binding(lock: str) -> str:
    """A lock file without libvirt's binding, which is Debian's own."""
    return re.sub(r"^libvirt-python==(?:.*\\\n)*.*\n", "", lock, flags=re.MULTILINE)


def _prune(home: Path, site: Path) -> None:
    for path in (home / "bin").iterdir():
        if not path.name.startswith("python") and path.name != "virtflow":
            path.unlink()
    for path in (*(site / name for name in NOT_RUN), home / "include"):
        shutil.rmtree(path, ignore_errors=True)
    for path in sorted(site.rglob("tests")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    for pattern in ("*.pyi", "*.c", "*.h", "*.pxd", "*.pyx", "py.typed"):
        for path in site.rglob(pattern):
            path.unlink()
    (next(site.glob("virtflow-*.dist-info")) / "INSTALLER").write_text("dpkg\n")


def _configuration(package: Package, root: Path, stage: Path) -> None:
    """Settings files in which every setting is a comment, written by the program that the package installs."""
    folder = stage / "etc" / "virtflow"
    folder.mkdir(parents=True)
    for sample in package.samples:
        text = _in(root, f"/{package.home}/bin/virtflow config sample --for {sample}")
        (folder / f"{sample}.toml").write_text(text)


def _system_files(package: Package, source: Path, stage: Path) -> None:
    deploy = source / "deploy"
    for unit in units_of(package, deploy):
        text = unit.read_text().replace(SAMPLE_PROGRAM, f"/{package.home}/bin/virtflow")
        _write(stage / "usr/lib/systemd/system" / unit.name, text)
    for kind in ("sysusers", "tmpfiles"):
        _write(stage / f"usr/lib/{kind}.d/{package.name}.conf", (deploy / "systemd" / f"{package.name}.{kind}").read_text())
    for page in sorted((deploy / "man").iterdir()):
        place = stage / package.home / "share/man" / f"man{page.suffix[1:]}" / f"{page.name}.gz"
        _write(place, gzip.compress(page.read_bytes(), mtime=0))
    documents = stage / "usr/share/doc" / package.name
    _write(documents / "copyright", (deploy / "debian/copyright").read_text())
    _write(documents / "changelog.gz", gzip.compress((source / "CHANGELOG.md").read_bytes(), mtime=0))
    _write(documents / "requirements.lock", without_binding((source / package.lock).read_text()))
    for name in DOCUMENTS:
        _write(documents / name, (source / "docs" / name).read_text())


def units_of(package: Package, deploy: Path = DEPLOY) -> list[Path]:
    """The units of a package's parts, templates included, in the order in which they are started again."""
    units = sorted((deploy / "systemd").glob("*.service"))
    return [unit for part in package.parts for unit in units if re.match(rf"virtflow-{part}[.@-]", unit.name)]


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o644)


def _control(package: Package, release: Release, stage: Path, revision: int) -> None:
    folder = stage / "DEBIAN"
    _write(folder / "control", control(package, release, revision, _kibibytes(stage)))
    _write(folder / "conffiles", "".join(f"/etc/virtflow/{sample}.toml\n" for sample in package.samples))
    for name in SCRIPTS:
        _write(folder / name, maintainer_script(package, name))
        (folder / name).chmod(0o755)
    _write(folder / "md5sums", "".join(_sums(stage)))
    for path in (stage, *stage.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def control(package: Package, release: Release, revision: int, kibibytes: int) -> str:
    """The package's control file."""
    (major, minor), names = release.python, ", "
    needs = (f"python3 (>= {major}.{minor})", f"python3 (<< {major}.{minor + 1})", *package.depends, "libstdc++6", "passwd", "systemd")
    lines = {
        "Package": package.name,
        "Version": debian_version(release, revision),
        "Architecture": _architecture(),
        "Maintainer": "virtflow maintainers <maintainers@virtflow.invalid>",
        "Installed-Size": str(kibibytes),
        "Depends": names.join(needs),
        "Recommends": "ca-certificates",
        "Suggests": names.join(package.suggests),
        "Section": "admin",
        "Priority": "optional",
        "Description": f"{package.about}\n virtflow brings the metrics of every VM of a KVM/libvirt fleet through Kafka to Prometheus.\n"
        " The package has a Python environment of its own, and enables no service.",
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items() if value)


def debian_version(release: Release, revision: int) -> str:
    """The version in Debian's form: that of the project, the build, and the release, so that a newer release's package is newer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return f"{project['version']}-{revision}~deb{release.number}"


def maintainer_script(package: Package, name: str) -> str:
    """A script that dpkg runs, with the package's own names in it."""
    patterns = " ".join(unit.name.replace("@.", "@*.") for unit in units_of(package))
    head = f"""#!/bin/sh
set -e
package={package.name} other={package.other} home=/{package.home} priority={package.priority}
parts="{" ".join(package.parts)}"
running_units() {{
  set -f
  for pattern in {patterns}; do
    systemctl list-units --plain --no-legend --state=active,activating,reloading "$pattern" | cut -d " " -f 1
  done
  set +f
}}
"""
    return head + (DEPLOY / "debian" / name).read_text()


def _sums(stage: Path) -> Iterator[str]:
    for path in sorted(stage.rglob("*")):
        relative = path.relative_to(stage)
        if path.is_file() and not path.is_symlink() and relative.parts[0] not in {"DEBIAN", "etc"}:
            yield f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {relative}\n"


def _kibibytes(stage: Path) -> int:
    """Installed size as Debian counts it: each file rounded up to a KiB, each other entry one."""
    return sum(-(-path.lstat().st_size // 1024) if path.is_file() and not path.is_symlink() else 1 for path in stage.rglob("*"))


def _architecture() -> str:
    return debian_root.run(["dpkg", "--print-architecture"]).strip()


def commit_time() -> int:
    """When the commit that is checked out was made: the time of all files that are built from it."""
    return int(debian_root.run(["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]))


def main() -> int:
    """Builds what the command line names and prints the files."""
    parser = argparse.ArgumentParser(prog="scripts/build-deb", description="Debian packages of virtflow")
    parser.add_argument("release", choices=list(RELEASES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--revision", type=int, default=1, help="number of this build of the version")
    parser.add_argument("--package", choices=list(PACKAGES), action="append", help="only this one; may be repeated")
    asked = parser.parse_args()
    try:
        built = build(asked.release, asked.folder.resolve(), tuple(asked.package or PACKAGES), asked.revision)
    except debian_root.RootError as error:
        print(f"build-deb: {error}", file=sys.stderr)
        return 1
    print("\n".join(str(file) for file in built))
    return 0


if __name__ == "__main__":
    sys.exit(main())
