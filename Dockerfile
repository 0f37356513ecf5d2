# rdsearch serve, for a folder of indexes that is mounted at /indexes. See examples/deploy.
#
#   docker build -t rdsearch .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/indexes:/indexes:ro" rdsearch /indexes/demo
#
# constraints.txt pins torch. Its default wheels on x86 bring CUDA along; with PyTorch's index of
# CPU builds (--build-arg PIP_EXTRA_INDEX_URL=…) and the version there the image is far smaller.

FROM python:3.12-slim AS build
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/rdsearch
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY rdsearch rdsearch
RUN /opt/rdsearch/bin/pip install --only-binary :all: --no-binary rdsearch \
    --constraint constraints.txt '.[cpu,server]'

FROM python:3.12-slim
# A number, so that who mounts a file of keys can give it to this user.
RUN groupadd --system --gid 10001 rdsearch \
    && useradd --system --uid 10001 --gid rdsearch --home-dir /nonexistent --no-create-home rdsearch
COPY --from=build /opt/rdsearch /opt/rdsearch
# Results of jobs go to /tmp; nothing else is written, so the rest may be read-only.
ENV PATH=/opt/rdsearch/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    TORCH_HOME=/weights TMPDIR=/tmp
USER 10001:10001
WORKDIR /indexes
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["rdsearch", "serve", "--host", "0.0.0.0", "--port", "8000", "--log-format", "json"]
CMD ["/indexes/demo"]
