#!/usr/bin/env bash
# Process 1 of a lab node. Started in namespaces of its own (network, mount, UTS, PID), where every mount is private; binds
# DIR/{run,lib,etc,log,cache} over libvirt's folders, makes the bridge that guests hang on, prints "ready" and then only adopts what
# libvirtd leaves behind.
# Usage: lab_node.sh DIR HOSTNAME ROOT FOLDER...
# With a ROOT other than / the hypervisor's programs are that root's: it is laid out, read-only, as DIR/root, to be entered by chroot. The
# node's libvirt folders and the machine's FOLDERs are there under their own paths.
set -euo pipefail
dir=$1 name=$2 root=$3; shift 3
mount -t proc proc /proc
mount -t sysfs sysfs /sys # this network namespace's devices, and no cgroups of the machine

lay_out() { # lay_out INNER FOLDER...
  local inner=$1 entry folder; shift
  mkdir "$inner"
  mount -t tmpfs root "$inner"
  for entry in "$root"/*; do
    if [ -L "$entry" ]; then cp -a "$entry" "$inner/"; else mkdir "$inner/${entry##*/}"; fi
  done
  for folder in usr etc var; do
    mount --bind "$root/$folder" "$inner/$folder"
    mount -o remount,bind,ro "$inner/$folder"
  done
  mount -t proc proc "$inner/proc"
  mount -t sysfs sysfs "$inner/sys"
  mount --rbind /dev "$inner/dev"
  for folder in "$@"; do
    mkdir -p "$inner$folder"
    mount --bind "$folder" "$inner$folder"
  done
}

bind_libvirt() { # bind_libvirt INNER
  local pair
  for pair in run:/run/libvirt lib:/var/lib/libvirt etc:/etc/libvirt log:/var/log/libvirt cache:/var/cache/libvirt; do
    mkdir -p "$dir/${pair%%:*}" "$1${pair#*:}"
    mount --bind "$dir/${pair%%:*}" "$1${pair#*:}"
  done
}

if [ "$root" != / ]; then
  lay_out "$dir/root" "$@"
  bind_libvirt "$dir/root"
fi
bind_libvirt ""
hostname "$name"
ip link set lo up
ip link add guests type bridge
ip addr add 10.99.0.254/24 dev guests
ip link set guests up
trap '' CHLD # inherited by sleep: whatever is adopted is reaped by the kernel
echo ready
exec sleep infinity > /dev/null 2>&1
