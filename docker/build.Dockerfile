# quatrain/build: what builds and stays out of the other images: pip, hatchling, binutils, the constraints.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends binutils \
       $(test -x /usr/bin/python3 && echo python3-venv) >/dev/null \
    && rm -rf /var/lib/apt/lists/*
COPY docker/install docker/without_cuda.py constraints.txt pyproject.toml /opt/build/
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca \
    python3 -m venv /opt/build/pip \
    && PIP_CONFIG_FILE=/run/secrets/pip /opt/build/pip/bin/python -m pip install --quiet --no-cache-dir hatchling==1.33.0 \
    && python3 -c 'import tomllib; print(*tomllib.load(open("/opt/build/pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
       >/opt/build/requirements.txt
ARG VERSION REVISION INPUTS
LABEL org.opencontainers.image.title="quatrain/build" \
      org.opencontainers.image.description="Tools that build Quatrain's images; not for running" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      quatrain.inputs="${INPUTS}"
