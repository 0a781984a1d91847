# The worker: `sameas run` as an ordinary user, with a health check. Other commands: docker run sameas feed ...
#
# With a digest, it is always the same image: --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:... (docs/security.md)
ARG PYTHON_IMAGE=python:3.11-slim
FROM ${PYTHON_IMAGE}

# The build for CPUs alone: PyPI's would bring gigabytes of CUDA.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu

RUN useradd --uid 10001 --create-home sameas \
    && install --directory --owner sameas --group sameas /state /checkpoint

WORKDIR /app
COPY locks locks
RUN pip install --no-cache-dir --require-hashes --no-deps --index-url "$TORCH_INDEX_URL" -r locks/torch-cpu.txt \
    && pip install --no-cache-dir --require-hashes --no-deps -r locks/worker.txt
COPY pyproject.toml README.md LICENSE sameas_command.py ./
COPY index index
COPY model model
COPY stream stream
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# Replays are kept beside the worker's state: both lie in the volume, as nothing else may be writable.
ENV PYTHONUNBUFFERED=1 \
    SAMEAS_STATE__DIR=/state/worker \
    SAMEAS_MODEL__DIR=/checkpoint \
    SAMEAS_METRICS__PORT=9464 \
    NUMBA_CACHE_DIR=/state/compiled
USER 10001
WORKDIR /home/sameas
# Compiled loops are kept in the volume, since nothing else of a read-only container can be written to. A new volume
# begins with those compiled here, for a processor like this one; others are compiled at the first start.
COPY --chown=10001 benchmarks/__init__.py benchmarks/catalogues.py /tmp/warm/benchmarks/
RUN PYTHONPATH=/tmp/warm python -c "from pathlib import Path; from benchmarks.catalogues import train_small; \
    train_small(Path('/tmp/warm/model'))" && rm -rf /tmp/warm
VOLUME /state

# Alive, not ready: no restart helps a worker that catches up or waits for its broker.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/livez', timeout=4)"]

ENTRYPOINT ["sameas"]
CMD ["run"]
