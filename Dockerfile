# Stoker's own image: operator, gateway policy service, agent and downloader in one.
FROM python:3.11-slim AS build
COPY requirements.txt /src/
# The environment has no pip of its own: nothing in the final image can install anything. Of the Kubernetes client only
# the part that reads kubeconfigs is used; the thousand classes for kinds and calls load one by one if ever, and go (98 MB).
RUN python3 -m venv --without-pip /opt/stoker \
    && python3 -m pip --python /opt/stoker/bin/python install --no-cache-dir --no-compile --disable-pip-version-check -r /src/requirements.txt \
    && site=$(/opt/stoker/bin/python -c 'import site; print(site.getsitepackages()[0])') \
    && find "$site" -depth -type d \( -name tests -o -name test \) -exec rm -rf {} + \
    && find "$site/kubernetes/client/models" "$site/kubernetes/client/api" "$site/kubernetes/aio/client/models" "$site/kubernetes/aio/client/api" \
        -type f ! -name __init__.py -delete \
    && /opt/stoker/bin/python -m compileall -q -j 2 "$site" \
    && printf '#!/opt/stoker/bin/python\nimport sys\nfrom stoker.__main__ import main\nsys.exit(main())\n' > /opt/stoker/bin/stoker \
    && chmod 0755 /opt/stoker/bin/stoker \
    && chmod -R a+rX /opt/stoker

FROM python:3.11-slim
# The dependencies are a layer of their own, which stays when only Stoker's own code changes.
COPY --from=build /opt/stoker /opt/stoker
# PYTHONSAFEPATH: the working directory is never searched for modules.
ENV PATH=/opt/stoker/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY operator/stoker /opt/stoker/lib/python3.11/site-packages/stoker
RUN /opt/stoker/bin/python -m compileall -q -j 2 /opt/stoker/lib/python3.11/site-packages/stoker \
    && chmod -R a+rX /opt/stoker/lib/python3.11/site-packages/stoker
USER 65532:65532
WORKDIR /
ENTRYPOINT ["stoker"]
