# The producer (and the simulator): what a hypervisor needs, and nothing of the centre.
# It reads the host's libvirt over the read-only socket: -v /run/libvirt/libvirt-sock-ro:/run/libvirt/libvirt-sock-ro
# libvirtd serves only users that the host knows: `useradd --system --uid 10001 virtflow` there, or run it with --user and one that is.
# It writes its journal of undelivered events to a volume: -v virtflow:/var/lib/virtflow
# `scripts/bench images` makes the same without a container engine, from this file: it knows ARG before FROM, FROM, RUN, COPY, ENV, WORKDIR, USER, and no options
# but --from.
# A release names the base by its digest (scripts/build-images): a tag can be given to another image.
ARG DEBIAN=debian:bookworm-slim
FROM ${DEBIAN} AS python
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*

FROM python AS build
COPY deploy/container/libraries.sh /
RUN /libraries.sh before
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libvirt-dev pkg-config python3-dev python3-pip
WORKDIR /src
COPY requirements-producer.lock requirements-build.lock ./
RUN pip install --no-cache-dir --no-compile --target /opt/build --require-hashes -r requirements-build.lock
RUN pip install --no-cache-dir --no-compile --target /opt/virtflow --require-hashes -r requirements-producer.lock
COPY . .
RUN PYTHONPATH=/opt/build pip install --no-cache-dir --no-compile --no-build-isolation --upgrade --target /opt/virtflow --no-deps .
RUN /libraries.sh after

FROM python
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin virtflow \
    && install -d -o virtflow -m 700 /var/lib/virtflow
COPY --from=build /layer /
ENV PATH=/opt/virtflow/bin:$PATH PYTHONPATH=/opt/virtflow PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=1
USER 10001
ENTRYPOINT ["virtflow"]
CMD ["producer"]
