# syntax=docker/dockerfile:1
# Two images from one recipe:  docker build --target cpu -t orrery:cpu .
#                              docker build --target gpu -t orrery:gpu .
# Both hold the checkout, the embedded model with it, and run as user 10001. KubeRay starts Ray in
# them; by themselves they run `orrery serve`.

FROM python:3.11-slim-bookworm AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/orrery

FROM base AS cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY pyproject.toml ./
# torch by itself and first, as in the Makefile: only its own index may differ.
RUN pip install --index-url "$TORCH_INDEX" \
    "$(sed -n 's/^ *"\(torch==[^"]*\)",/\1/p' pyproject.toml)"
COPY . .
RUN pip install --editable . && k8s/finish-image.sh
USER 10001:10001
ENV HOME=/var/lib/orrery ORRERY_HOME=/var/lib/orrery NUMBA_CACHE_DIR=/var/lib/orrery/numba
EXPOSE 8000
CMD ["orrery", "serve", "--host", "0.0.0.0"]

FROM base AS gpu
# Triton compiles its launchers with a C compiler when a kernel is first used.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml ./
# PyPI's torch brings CUDA's libraries; the node brings the driver.
RUN pip install "$(sed -n 's/^ *"\(torch==[^"]*\)",/\1/p' pyproject.toml)"
COPY . .
RUN pip install --editable '.[gpu]' && k8s/finish-image.sh
USER 10001:10001
ENV HOME=/var/lib/orrery ORRERY_HOME=/var/lib/orrery NUMBA_CACHE_DIR=/var/lib/orrery/numba
EXPOSE 8000
CMD ["orrery", "serve", "--host", "0.0.0.0"]
