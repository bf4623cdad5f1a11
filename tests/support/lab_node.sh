#!/usr/bin/env bash
# Process 1 of a lab node. Started in namespaces of its own (network, mount, UTS, PID); binds DIR/{run,lib,etc,log,cache} over libvirt's
# folders, makes the bridge that guests hang on, prints "ready" and then only adopts what libvirtd leaves behind.
# Usage: lab_node.sh DIR HOSTNAME
set -euo pipefail
dir=$1
# Nothing mounted here may reach the machine; "/" alone would not do, in a chroot it is no mount point.
awk '{print $5}' /proc/self/mountinfo | while read -r point; do mount --make-private "$point" 2>/dev/null || true; done
mount -t proc proc /proc
mount -t sysfs sysfs /sys # this network namespace's devices, and no cgroups of the machine
for pair in run:/run/libvirt lib:/var/lib/libvirt etc:/etc/libvirt log:/var/log/libvirt cache:/var/cache/libvirt; do
  mkdir -p "$dir/${pair%%:*}" "${pair#*:}"
  mount --bind "$dir/${pair%%:*}" "${pair#*:}"
done
hostname "$2"
ip link set lo up
ip link add guests type bridge
ip addr add 10.99.0.254/24 dev guests
ip link set guests up
trap '' CHLD # inherited by sleep: whatever is adopted is reaped by the kernel
echo ready
exec sleep infinity > /dev/null 2>&1
