# quatrain/base: Python, the environment /opt/quatrain with what every process needs, user 10001.
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG BUILD_IMAGE
FROM ${BUILD_IMAGE} AS build
# Podman 4 removes a stage without a step after the build, and with it the image that it stands for.
USER 0:0
FROM ${BASE_IMAGE}
RUN --mount=type=bind,from=build,source=/opt/build,target=/opt/build \
    --mount=type=secret,id=pip --mount=type=secret,id=ca \
    python3 -m venv --without-pip /opt/quatrain \
    && /opt/build/install -r /opt/build/requirements.txt \
    && rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/site-packages/pip* \
    && echo 'quatrain:x:10001:' >>/etc/group \
    && echo 'quatrain:x:10001:10001:Quatrain:/tmp:/usr/sbin/nologin' >>/etc/passwd \
    && install -d -o 10001 -g 10001 /var/cache/quatrain
# Off loopback a process wants TLS or QUATRAIN_SERVER__INSECURE=true, and says so. Idle OpenMP threads sleep, and freed
# memory is kept for the next pass, as in `quatrain up`.
ENV PATH=/opt/quatrain/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    TOKENIZERS_PARALLELISM=false \
    OMP_WAIT_POLICY=passive \
    KMP_BLOCKTIME=0 \
    MALLOC_ARENA_MAX=1 \
    MALLOC_MMAP_THRESHOLD_=33554432 \
    MALLOC_TRIM_THRESHOLD_=536870912 \
    QUATRAIN_SERVER__HOST=0.0.0.0 \
    QUATRAIN_SERVER__HEALTH_PORT=50060 \
    QUATRAIN_SERVER__METRICS_PORT=9090 \
    QUATRAIN_TELEMETRY__FORMAT=json \
    QUATRAIN_COMPUTE__CACHE_DIR=/var/cache/quatrain
USER 10001:10001
WORKDIR /tmp
ARG VERSION REVISION INPUTS
LABEL org.opencontainers.image.title="quatrain/base" \
      org.opencontainers.image.description="Python and what every Quatrain process needs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      quatrain.inputs="${INPUTS}"
