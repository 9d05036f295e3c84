# quatrain/reward: the reward service.
ARG BASE_IMAGE
ARG BUILD_IMAGE
FROM ${BUILD_IMAGE} AS build
COPY pyproject.toml README.md LICENSE /src/
COPY lib /src/lib
COPY services /src/services
COPY orchestrator /src/orchestrator
RUN /opt/build/pip/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /opt/build/wheel /src
FROM ${BASE_IMAGE}
USER 0:0
RUN --mount=type=bind,from=build,source=/opt/build,target=/opt/build \
    --mount=type=secret,id=pip --mount=type=secret,id=ca \
    /opt/build/install "$(echo /opt/build/wheel/*.whl)[reward]"
USER 10001:10001
ENV QUATRAIN_SERVER__PORT=50052
EXPOSE 50052 50060 9090
# Each check starts Python, which takes a while where all cores are busy; a process that hangs is found after a minute.
HEALTHCHECK --interval=10s --timeout=20s --start-period=120s --retries=3 \
    CMD ["python", "-m", "quatrain.rpc.health", "--timeout=10", "127.0.0.1:50060"]
ENTRYPOINT ["python", "-m", "quatrain.reward"]
ARG VERSION REVISION INPUTS
LABEL org.opencontainers.image.title="quatrain/reward" \
      org.opencontainers.image.description="Quatrain's reward service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      quatrain.inputs="${INPUTS}"
