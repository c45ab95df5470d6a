# Troupe for production. `docker compose build` builds it; docs/containers.md says how to run it.

# The build of GraphiQL.
FROM node:22-slim AS graphiql
WORKDIR /app/graph/graphiql
COPY graph/graphiql/package.json graph/graphiql/package-lock.json graph/graphiql/.npmrc ./
RUN npm ci
# The code that reads the token is shared with the plain page.
COPY graph/plain/ ../plain/
COPY graph/graphiql/ ./
RUN npm run build

# The build of the console, whose operations are typed by the schema.
FROM node:22-slim AS console
WORKDIR /app/graph/console
COPY graph/console/package.json graph/console/package-lock.json graph/console/.npmrc ./
RUN npm ci
COPY schema.graphql ../../
COPY graph/plain/ ../plain/
COPY graph/console/ ./
RUN npm run build

# The version of Python with which the tests run.
FROM python:3.11-slim AS base
WORKDIR /app

# The virtual environment, at its final path. The pinned dependencies come first: they change less
# often than the code, so that most builds find them in the cache.
FROM base AS build
COPY requirements.txt ./
RUN python -m venv .venv
RUN .venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml README.md alembic.ini ./
COPY db/ db/
COPY graph/ graph/
COPY migrations/ migrations/
RUN .venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --no-build-isolation --editable .
COPY --from=graphiql /app/graph/graphiql/dist graph/graphiql/dist
COPY --from=console /app/graph/console/dist graph/console/dist
RUN .venv/bin/python -m compileall -q db graph migrations

FROM base
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TROUPE_MODE=production \
    TROUPE_HOST=0.0.0.0 \
    TROUPE_PORT=8000
# A number, so that Kubernetes can check that it is not root. It owns no file in the image.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "from http.client import HTTPConnection; c = HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/readyz'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["troupe"]
CMD ["serve"]
