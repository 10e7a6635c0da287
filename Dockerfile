# NodePulse: one image for every process. `serve` is the default; stores come from outside (docker-compose.yml)
# or, without URLs, embedded under /data.
FROM python:3.11-slim AS built
WORKDIR /app
COPY requirements.lock ./
# The lock file names exact versions and hashes; nothing else is ever installed.
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock \
 && echo /app > "$(/venv/bin/python -c 'import site; print(site.getsitepackages()[0])')/nodepulse.pth"

FROM python:3.11-slim
RUN useradd --uid 10001 --home-dir /data --no-create-home nodepulse \
 && install -d -m 0700 -o nodepulse -g nodepulse /data
COPY --from=built /venv /venv
WORKDIR /app
COPY LICENSE README.md config.example.yaml ./
COPY np1 np1
COPY engine engine
COPY storage storage
COPY web web
COPY worker worker
COPY node node
COPY nodepulse nodepulse
COPY bench bench
RUN /venv/bin/python -m compileall -q /app
USER nodepulse
ENV NODEPULSE_DATA_DIR=/data \
    NODEPULSE_WEB__HOST=0.0.0.0 \
    NODEPULSE_INGEST__HOST=0.0.0.0
VOLUME /data
EXPOSE 8080/tcp 7900/tcp 7900/udp
# serve stops in order within 15 s; give it that (docker stop -t 20).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["/venv/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["/venv/bin/python", "-P", "-m", "nodepulse"]
CMD ["serve"]
