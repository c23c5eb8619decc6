# `docker build .` makes the image that serves; `--target test` the one for `make docker-run-tests`.

FROM python:3.13-slim AS base
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number of its own, not one of the host's users; Kubernetes can only see that it is not root by it.
RUN groupadd --gid 10001 totoro \
 && useradd --uid 10001 --gid totoro --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin totoro
WORKDIR /app


FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_COMPILE=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /venv
COPY requirements/main.txt /requirements/
RUN pip --python /venv/bin/python install --quiet --require-hashes --requirement /requirements/main.txt
COPY manage.py ./
COPY movies movies
COPY services services
COPY totoro totoro
COPY fake_ghibli fake_ghibli
# Without the same files as in the Makefile's staticfiles/.made.
RUN DJANGO_SECRET_KEY=none-needed-to-copy-files python manage.py collectstatic --verbosity 0 --no-input \
      --ignore '*.map' --ignore 'redoc-old' --ignore '*-es-bundle*.js' \
 && chmod -R u=rwX,go=rX .
# Bytecode, for a quick start of a user who may not write it; a registry that changes the files' times
# does not make it void.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib .


FROM build AS test
COPY requirements/dev.txt /requirements/
RUN pip --python /venv/bin/python install --quiet --require-hashes --requirement /requirements/dev.txt
COPY . .
RUN chmod -R u=rwX,go=rX . && chown totoro:totoro .
# PostgreSQL, which the tests start, refuses to run as root.
USER 10001:10001
CMD ["pytest"]


FROM base
COPY --from=build /venv /venv
COPY --from=build /app /app
# For the SQLite file where no DATABASE_URL is given: nothing else here may be written.
RUN install --directory --owner=totoro --group=totoro var
USER 10001:10001
ENV PORT=8000
EXPOSE 8000
# /livez answers under any Host, whatever ALLOWED_HOSTS names.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["python", "-c", "\
import http.client, os, sys; \
livez = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=2); \
livez.request('GET', '/livez'); \
sys.exit(livez.getresponse().status != 200)"]
CMD ["python", "manage.py", "serve"]
