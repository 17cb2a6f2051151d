# cores serve in a container.
#
#   docker build -t cores .                              on a CPU
#   docker build -t cores --build-arg TORCH=cu130 .      on an NVIDIA GPU; then docker run --gpus all
#   docker run -p 127.0.0.1:8000:8000 -v models:/models -e CORES_API_KEY=... cores MODEL
#
# tools/docker_steps.py runs the same steps without Docker.
FROM python:3.11-slim

ARG TORCH=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/${TORCH}

ENV HOME=/models PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# What is downloaded and converted lies in HOME, which a volume keeps.
RUN install --directory --owner 1000 --group 1000 "$HOME"

WORKDIR /app
COPY constraints.txt ./
RUN python -m pip install --constraint constraints.txt --index-url "$TORCH_INDEX" torch

COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m pip install --constraint constraints.txt ".[serve]"

USER 1000:1000
VOLUME /models
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz')"]
ENTRYPOINT ["cores", "serve", "--host", "0.0.0.0"]
