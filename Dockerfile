# docker build -t pixelpick .                                 for the CPU
# docker build -t pixelpick:cuda --build-arg DEVICE=cuda .    for NVIDIA GPUs; run with --gpus all
#
# docker run --rm pixelpick sh scripts/demo.sh
# docker run --rm --user "$(id -u):$(id -g)" -v /path/to/CamVid:/camvid:ro \
#     -v "$PWD/checkpoints:/pixelpick/checkpoints" pixelpick \
#     python train.py --dataset_name cv --dir_dataset /camvid
#
# torchrun with several GPUs needs --ipc host too. The annotation tool's window needs a display; its
# browser version does not: -p 8765:8765, python -m annotation_tool.serve --host 0.0.0.0.
FROM python:3.12-slim

ARG DEVICE=cpu
WORKDIR /pixelpick
COPY requirements.txt .
# The usual wheels of torch for Linux bring CUDA along, some gigabytes; PyTorch's index has others.
RUN case "$DEVICE" in \
        cpu) set -- --extra-index-url https://download.pytorch.org/whl/cpu ;; \
        cuda) set -- ;; \
        *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 2 ;; \
    esac && pip install --no-cache-dir "$@" -r requirements.txt

# Any user may run it: what the program writes by default goes to these folders, and to /tmp.
RUN useradd --uid 1000 pixelpick \
    && mkdir -p data checkpoints annotation_tool/logs \
    && chmod 1777 data checkpoints annotation_tool/logs
COPY . .

ENV USE_PYTHON=python \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    USER=pixelpick \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
CMD ["python", "train.py", "--help"]
