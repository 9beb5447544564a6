# ganzoo in a container: the same file for CPU and CUDA.
#
#   docker build -t ganzoo .                                    # CUDA: PyTorch's default Linux wheels bring CUDA with them
#   docker build -t ganzoo:cpu --build-arg TORCH_INDEX=URL .    # CPU: URL is PyTorch's package index of CPU builds
#   docker run --rm -it --gpus all --shm-size 1g -v "$PWD":/work ganzoo fit --config quickstart.yaml
#
# BASE may be another Debian-like image with Python 3.11 or later, such as one with the CUDA tool kit.
ARG BASE=python:3.11-slim
FROM ${BASE}

ARG TORCH_INDEX=""
ARG UID=1000

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# An environment of its own works in every base, whatever its Python is managed by.
RUN python3 -m venv /venv
ENV PATH=/venv/bin:${PATH}

# torch first, in a layer of its own: it is large, and changes less often than ganzoo.
COPY constraints.txt /tmp/ganzoo/
# Where both indexes have a version, a local one such as +cpu wins.
RUN PIP_CONSTRAINT=/tmp/ganzoo/constraints.txt PIP_EXTRA_INDEX_URL="${TORCH_INDEX}" pip install torch torchvision

COPY pyproject.toml README.md LICENSE /tmp/ganzoo/
COPY configs /tmp/ganzoo/configs
COPY ganzoo /tmp/ganzoo/ganzoo
RUN PIP_CONSTRAINT=/tmp/ganzoo/constraints.txt pip install "/tmp/ganzoo[tensorboard]" && rm -rf /tmp/ganzoo

# Runs are written where the container is started; the cache of decoded images can be kept in a volume.
RUN useradd --create-home --uid ${UID} ganzoo \
    && mkdir -p /work /cache \
    && chown ganzoo:ganzoo /work /cache
ENV GANZOO_CACHE=/cache
VOLUME /cache
USER ganzoo
WORKDIR /work

ENTRYPOINT ["ganzoo"]
CMD ["--help"]
