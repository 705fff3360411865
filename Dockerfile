# The command line in a small image: docker build --tag stac-cloudmask --build-arg EXTRAS=s3,task .
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=s3
COPY . /src
RUN python -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir uv \
    && /opt/uv/bin/uv venv /opt/stac-cloudmask \
    && /opt/uv/bin/uv pip install --no-cache --python /opt/stac-cloudmask "/src[${EXTRAS}]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/stac-cloudmask /opt/stac-cloudmask
RUN useradd --create-home --uid 1000 mask
ENV PATH=/opt/stac-cloudmask/bin:$PATH
USER 1000
WORKDIR /home/mask
ENTRYPOINT ["stac-cloudmask"]
CMD ["--help"]
