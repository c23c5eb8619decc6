# `docker build .` builds the image for production. `--target test` is for `make docker-run-tests`,
# `--target fake-ghibli` for the demo profile of docker-compose.yml, `--target dev` for docker-compose.dev.yml.

FROM python:3.13-slim AS base
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A user id above those of the host's users. Kubernetes' runAsNonRoot needs a number, not a name.
RUN groupadd --gid 10001 totoro \
 && useradd --uid 10001 --gid totoro --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin totoro
WORKDIR /app


FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_COMPILE=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /venv
COPY requirements/main.txt requirements/tracing.txt /requirements/
# `tracing`: with the packages for traces.
ARG REQUIREMENTS=main
RUN pip --python /venv/bin/python install --quiet --require-hashes --requirement "/requirements/$REQUIREMENTS.txt"
COPY manage.py ./
COPY movies movies
COPY services services
COPY totoro totoro
# The same files are left out as in the Makefile.
RUN DJANGO_SECRET_KEY=none-needed-to-copy-files python manage.py collectstatic --verbosity 0 --no-input \
      --ignore '*.map' --ignore 'redoc-old' --ignore '*-es-bundle*.js' \
 && chmod -R u=rwX,go=rX .


FROM build AS test
COPY requirements/test.txt /requirements/
RUN pip --python /venv/bin/python install --quiet --require-hashes --requirement /requirements/test.txt
COPY . .
RUN chmod -R u=rwX,go=rX . && chown totoro:totoro .
# The tests start PostgreSQL, which refuses to run as root.
USER 10001:10001
CMD ["pytest"]


FROM build AS dev
COPY requirements/dev.txt /requirements/
RUN pip --python /venv/bin/python install --quiet --require-hashes --requirement /requirements/dev.txt
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["python", "-c", "\
import http.client, sys; \
livez = http.client.HTTPConnection('127.0.0.1', 8000, timeout=2); \
livez.request('GET', '/livez'); \
sys.exit(livez.getresponse().status != 200)"]
CMD ["python", "manage.py", "runserver", "0.0.0.0:8000"]


# From `build`, although the standard library and services/ would do: BuildKit 0.8 (Docker 20.10) keeps one copy of the
# context for all targets. If one of them needed less of it, files that were deleted since would return in the others.
FROM build AS fake-ghibli
COPY fake_ghibli fake_ghibli
RUN chmod -R u=rwX,go=rX fake_ghibli
USER 10001:10001
EXPOSE 3900
CMD ["python", "-m", "fake_ghibli", "--host", "0.0.0.0", "--port", "3900"]


# Without what serving does not need: the sources of the collected static files, Django's unused applications and
# languages, and tests. DRF imports the code of Django's admin.
FROM build AS serving
WORKDIR /venv/lib/python3.13/site-packages
RUN rm -rf drf_yasg/static rest_framework/static rest_framework/locale rest_framework/authtoken \
      django/contrib/admin/static django/contrib/admin/templates django/contrib/gis django/contrib/flatpages \
      django/contrib/humanize django/contrib/redirects django/contrib/sitemaps django/contrib/syndication \
      django/test ./*/tests \
 && find . -path '*/locale/*/LC_MESSAGES' -prune -exec rm -rf {} +
WORKDIR /app
# The user who serves cannot write bytecode. Unchecked, because image tools may change the files' times.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib .


FROM base AS production
# pip belongs to the base image.
RUN python -m pip uninstall --quiet --yes --root-user-action ignore pip
COPY --from=serving /venv /venv
COPY --from=serving /app /app
# The SQLite file is here when DATABASE_URL is empty. All other folders are read-only for the user.
RUN install --directory --owner=totoro --group=totoro var
USER 10001:10001
ENV PORT=8000
EXPOSE 8000
# /livez accepts any Host header, whatever ALLOWED_HOSTS is.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["python", "-c", "\
import http.client, os, sys; \
livez = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=2); \
livez.request('GET', '/livez'); \
sys.exit(livez.getresponse().status != 200)"]
CMD ["python", "manage.py", "serve"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Totoro" \
      org.opencontainers.image.description="All Studio Ghibli movies: a REST API never more than a minute old" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
