# Stoker's own image: operator, gateway policy service, agent and downloader in one.
FROM python:3.11-slim AS build
COPY requirements.txt /src/
# The environment has no pip of its own: nothing in the final image can install anything.
RUN python3 -m venv --without-pip /opt/stoker \
    && python3 -m pip --python /opt/stoker/bin/python install --no-cache-dir --no-compile --disable-pip-version-check -r /src/requirements.txt
COPY operator/stoker /opt/stoker/stoker
RUN site=$(/opt/stoker/bin/python -c 'import site; print(site.getsitepackages()[0])') \
    && mv /opt/stoker/stoker "$site/stoker" \
    && printf '#!/opt/stoker/bin/python\nimport sys\nfrom stoker.__main__ import main\nsys.exit(main())\n' > /opt/stoker/bin/stoker \
    && chmod 0755 /opt/stoker/bin/stoker \
    && find "$site" -depth -type d \( -name tests -o -name test \) -exec rm -rf {} + \
    && /opt/stoker/bin/python -m compileall -q -j 2 "$site" \
    && chmod -R a+rX /opt/stoker

FROM python:3.11-slim
COPY --from=build /opt/stoker /opt/stoker
# PYTHONSAFEPATH: the working directory is never searched for modules.
ENV PATH=/opt/stoker/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
ENTRYPOINT ["stoker"]
