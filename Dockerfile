# syntax=docker/dockerfile:1
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY gateway gateway
COPY webhooks webhooks
RUN python -m venv /opt/gateway && /opt/gateway/bin/pip install --no-cache-dir '.[nats]'

FROM python:3.11-slim
RUN useradd --system --uid 10001 --create-home --home-dir /data gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_PORT=8000 \
    GATEWAY_DATABASE_URL=sqlite:////data/gateway.db \
    GATEWAY_LOG_FORMAT=json
USER gateway
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["gateway", "health"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
