# quatrain/torch: base, torch and transformers; the four services with models share this layer.
# COMPUTE=cpu takes torch without CUDA's libraries: from TORCH_INDEX_URL, an index that
# has such a build, where that is given, else PyPI's torch with without_cuda.py. COMPUTE=cuda takes all that torch needs.
ARG BASE_IMAGE
ARG BUILD_IMAGE
FROM ${BUILD_IMAGE} AS build
# Podman 4 removes a stage without a step after the build, and with it the image that it stands for.
USER 0:0
FROM ${BASE_IMAGE}
ARG COMPUTE=cpu
ARG TORCH_INDEX_URL=
USER 0:0
RUN --mount=type=bind,from=build,source=/,target=/build \
    --mount=type=bind,from=build,source=/opt/build,target=/opt/build \
    --mount=type=secret,id=pip --mount=type=secret,id=ca \
    set -eu; \
    if [ "${COMPUTE}" = cuda ]; then /opt/build/install torch transformers safetensors; exit; fi; \
    /opt/build/install transformers safetensors filelock typing_extensions sympy networkx jinja2 fsspec 'setuptools>=77.0.3'; \
    /opt/build/install --no-deps ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} torch; \
    site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
    if [ -z "${TORCH_INDEX_URL}" ]; then \
      PATH="$PATH:/build/usr/bin" LD_LIBRARY_PATH="/build/usr/lib/$(uname -m)-linux-gnu" python /opt/build/without_cuda.py "$site"; \
      rm -rf "$site"/torch/lib/libtorch_cuda_linalg.so; \
    fi; \
    rm -rf "$site/torch/include" "$site/torch/share"; \
    python -c 'import torch, transformers; assert torch.ones(2).sum() == 2'
USER 10001:10001
ARG VERSION REVISION INPUTS
LABEL org.opencontainers.image.title="quatrain/torch" \
      org.opencontainers.image.description="torch and transformers for Quatrain's services with models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      quatrain.compute="${COMPUTE}" \
      quatrain.inputs="${INPUTS}"
