# The image holds the interpreter, the pinned dependencies and app/: no compiler, no pip cache, no tests.
FROM python:3.11-slim-bookworm AS build

# `--build-arg PARQUET=yes` adds pyarrow, 170 MB, for exports as Parquet.
ARG PARQUET=
# `--build-arg TRACING=yes` adds the OpenTelemetry exporter.
ARG TRACING=
COPY requirements/runtime.txt requirements/parquet.txt requirements/tracing.txt /build/
# Wheels only: nothing from an index may run code here, and every file must match its hash.
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary :all: -r /build/runtime.txt ${PARQUET:+-r /build/parquet.txt} \
        ${TRACING:+-r /build/tracing.txt}
COPY app /opt/gateway/app
# The file system may be read-only later, so the bytecode is made here; unchecked, for files do not change there.
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/gateway/app

FROM python:3.11-slim-bookworm

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/gateway /opt/gateway
WORKDIR /opt/gateway
# A number, so that Kubernetes can check runAsNonRoot; nobody owns a file in the image.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["python", "-m", "app.healthcheck"]
CMD ["python", "-m", "app", "serve"]
