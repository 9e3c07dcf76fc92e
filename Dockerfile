# Two stages: the image does not contain the build tools. Every dependency is locked with its hash.
# The base has Python 3.11 or newer with venv. Name one by digest to build the same image again:
#   --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim
FROM ${PYTHON_IMAGE} AS build
RUN python3 -m venv /opt/push-relay
WORKDIR /src
COPY requirements/run.txt requirements/run.txt
# Settings of pip, e.g. an index of your own with its password: `--secret id=pip,src=pip.conf`. They enter no layer.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/push-relay/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY eas_watcher eas_watcher
COPY relay relay
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/push-relay/bin/pip install --no-cache-dir --no-deps .

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 relay \
 && useradd --uid 10001 --gid relay --no-create-home --shell /usr/sbin/nologin relay \
 && install --directory --owner relay --group relay --mode 0700 /var/lib/push-relay
COPY --from=build /opt/push-relay /opt/push-relay
ENV PATH=/opt/push-relay/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    RELAY__OPS__HOST=0.0.0.0
# A number: Kubernetes and scanners see that it is not root without a look into the image.
USER 10001:10001
WORKDIR /var/lib/push-relay
VOLUME /var/lib/push-relay
# 8443: the registration API. 9090: health and metrics; publish it to a management network only.
EXPOSE 8443 9090
# It follows ops.host and ops.port of the configuration. A second of a busy processor goes into starting Python.
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s --retries=3 CMD ["relay", "check-health", "--probe", "alive"]
ENTRYPOINT ["relay"]
CMD ["serve", "--config", "/etc/push-relay/relay.toml"]
