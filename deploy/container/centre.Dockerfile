# The centre: processors, exporter, adapter, history, and the job that makes the topics. Without libvirt.
# A release names the base by its digest (scripts/build-images): a tag can be given to another image.
ARG DEBIAN=debian:bookworm-slim
FROM ${DEBIAN} AS python
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*

FROM python AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-pip
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN pip install --no-cache-dir --no-compile --target /opt/build --require-hashes -r requirements-build.lock
# The lock holds the producer's packages too: its libvirt binding would need libvirt's headers here.
RUN awk '/^libvirt-python==/ {leave = 1; next} /^[^ ]/ {leave = 0} !leave' requirements.lock > centre.lock \
    && pip install --no-cache-dir --no-compile --target /opt/virtflow --require-hashes -r centre.lock
COPY . .
# --upgrade: pip would leave out the program where another package has made the folder bin.
RUN PYTHONPATH=/opt/build pip install --no-cache-dir --no-compile --no-build-isolation --upgrade --target /opt/virtflow --no-deps . \
    && find /opt/virtflow -name tests -type d -prune -exec rm -rf {} + \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/virtflow

FROM python
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin virtflow \
    && install -d -o virtflow -m 755 /var/lib/virtflow/keys
COPY --from=build /opt/virtflow /opt/virtflow
ENV PATH=/opt/virtflow/bin:$PATH PYTHONPATH=/opt/virtflow PYTHONDONTWRITEBYTECODE=1
USER 10001
ENTRYPOINT ["virtflow"]
CMD ["exporter"]
