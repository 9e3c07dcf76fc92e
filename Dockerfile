# Two stages: the image does not contain the build tools. Every dependency is locked with its hash.
FROM python:3.13-slim AS build
RUN python -m venv /opt/push-relay
WORKDIR /src
COPY requirements/run.txt requirements/run.txt
RUN /opt/push-relay/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY eas_watcher eas_watcher
COPY relay relay
RUN /opt/push-relay/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim
RUN groupadd --gid 10001 relay \
 && useradd --uid 10001 --gid relay --no-create-home --shell /usr/sbin/nologin relay \
 && install --directory --owner relay --group relay --mode 0700 /var/lib/push-relay
COPY --from=build /opt/push-relay /opt/push-relay
ENV PATH=/opt/push-relay/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    RELAY__OPS__HOST=0.0.0.0
USER relay
WORKDIR /var/lib/push-relay
VOLUME /var/lib/push-relay
# 8443: the registration API. 9090: health and metrics; publish it to a management network only.
EXPOSE 8443 9090
# It follows ops.host and ops.port of the configuration. A second of a busy processor goes into starting Python.
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s --retries=3 CMD ["relay", "check-health", "--probe", "alive"]
ENTRYPOINT ["relay"]
CMD ["serve", "--config", "/etc/push-relay/relay.toml"]
