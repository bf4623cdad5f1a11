# The producer (and the simulator): what a hypervisor needs, and nothing of the centre.
# It reads the host's libvirt over the read-only socket: -v /run/libvirt/libvirt-sock-ro:/run/libvirt/libvirt-sock-ro
# It writes its journal of undelivered events to a volume: -v virtflow:/var/lib/virtflow
FROM python:3.13-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libvirt-dev pkg-config && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/virtflow
WORKDIR /src
COPY requirements-producer.lock ./
RUN /opt/virtflow/bin/pip install --no-cache-dir --require-hashes -r requirements-producer.lock
COPY . .
RUN /opt/virtflow/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends libvirt0 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin virtflow \
    && install -d -o virtflow -m 700 /var/lib/virtflow
COPY --from=build /opt/virtflow /opt/virtflow
ENV PATH=/opt/virtflow/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001
ENTRYPOINT ["virtflow"]
CMD ["producer"]
