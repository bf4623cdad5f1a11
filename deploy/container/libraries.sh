#!/bin/sh
# Makes /layer in the producer's build stage: what its image has beyond Python. Run with "before", install all that building takes, then run
# with "after".
#  - Of Debian's packages only the shared libraries that libvirt's client is linked with, and that were not there before.
#  - libicudata, 31 MB of tables for the world's writing systems, is replaced by an empty one (ICU's own "stubdata"): libxml2 is linked with
#    it, and reads UTF-8 without.
#  - Of Python's packages what runs: no tests, no sub-packages for other uses, modules compiled.
set -eu
lib=/usr/lib/x86_64-linux-gnu

if [ "$1" = before ]; then
  ls $lib /lib/x86_64-linux-gnu > /libraries-before
  exit
fi

mkdir -p /layer/opt /layer$lib
cp -r /opt/virtflow /layer/opt/
cd /layer/opt/virtflow
rm -rf confluent_kafka/avro confluent_kafka/aio confluent_kafka/kafkatest confluent_kafka/schema_registry confluent_kafka/_oauthbearer
rm -rf libvirtmod_lxc* libvirt_lxc.py virtflow/processors virtflow/exporter virtflow/adapter virtflow/history
find . -name tests -type d -prune -exec rm -rf {} +
find . \( -name '*.pyi' -o -name '*.c' -o -name '*.h' -o -name 'py.typed' \) -delete
python3 -m compileall -q --invalidation-mode unchecked-hash .

for path in $(ldd libvirtmod*.so confluent_kafka/*.so confluent_kafka.libs/*.so* | awk '$3 ~ /^\// {print $3}' | sort -u); do
  name=${path##*/}
  grep -qx "$name" /libraries-before || case $path in /layer/*) ;; *) cp -L "$path" /layer$lib/"$name" ;; esac
done
data=$(find /layer$lib -name 'libicudata.so.*')
version=${data##*.}
# The header that ICU's files of data begin with, saying that nothing follows.
cat > /stub.c <<END
const struct {
  unsigned short header_size; unsigned char magic1, magic2;
  unsigned short info_size, reserved1; unsigned char big_endian, charset, uchar_size, reserved2, format[4], format_version[4], data_version[4];
  char padding[8]; unsigned int count, reserved3;
} __attribute__((aligned(16))) icudt${version}_dat = {32, 0xda, 0x27, 20, 0, 0, 0, 2, 0, "ToCP", {1}, {0}, {0}, 0, 0};
END
gcc -shared -o "$data" -Wl,-soname,"${data##*/}" /stub.c
