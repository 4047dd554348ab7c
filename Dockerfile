# An image whose command is hepattn; docs/concepts/training.md says how to use it.
FROM python:3.11-slim

# wheels of torch: the CPU's, or those of a CUDA version (https://download.pytorch.org/whl/cu128)
ARG WHEELS=https://download.pytorch.org/whl/cpu
ARG TORCH=2.13.0
ARG EXTRAS=deploy,eval

RUN useradd --create-home hepattn
RUN pip install --no-cache-dir --index-url "${WHEELS}" "torch==${TORCH}"

# what is installed changes less often than what is written, so torch is a layer of its own
WORKDIR /opt/hepattn
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY src src
RUN pip install --no-cache-dir ".[${EXTRAS}]"

USER hepattn
WORKDIR /workspace
# writable for any user that the container runs as
ENV HEPATTN_CACHE=/workspace/.hepattn_cache \
    MPLCONFIGDIR=/tmp/matplotlib
ENTRYPOINT ["hepattn"]
CMD ["--help"]
