# The centre: processors, exporter, and the job that makes the topics. Without libvirt.
FROM python:3.13-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/virtflow
WORKDIR /src
COPY requirements.lock ./
# The lock holds the producer's packages too: its libvirt binding would need libvirt's headers here.
RUN awk '/^libvirt-python==/ {leave = 1; next} /^[^ ]/ {leave = 0} !leave' requirements.lock > centre.lock \
    && /opt/virtflow/bin/pip install --no-cache-dir --require-hashes -r centre.lock
COPY . .
RUN /opt/virtflow/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin virtflow
COPY --from=build /opt/virtflow /opt/virtflow
ENV PATH=/opt/virtflow/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001
ENTRYPOINT ["virtflow"]
CMD ["exporter"]
