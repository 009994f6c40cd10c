# This image contains every program. The command chooses one: `ingest`, `worker`, `topics`, ...

# The first stage has a C compiler, because `faust-streaming` has no wheel for Linux on ARM.
FROM python:3.13.15-bookworm@sha256:933b46a028fd786c9c3d426ebabc237e29a15912231ea8de576e95f0e4f41a4c AS build

WORKDIR /src
COPY requirements/build.txt requirements/
RUN pip install --no-cache-dir --require-hashes --requirement requirements/build.txt \
    && uv venv --python python3 /opt/plexy-ledger

# The dependencies come before the code. They change less often, so their layer stays cached.
# Bytecode is compiled here, because the user that runs the programs can't write it.
ENV VIRTUAL_ENV=/opt/plexy-ledger
COPY requirements/runtime.txt requirements/
RUN uv pip install --no-cache --compile-bytecode --require-hashes \
    --requirement requirements/runtime.txt

COPY pyproject.toml README.md LICENSE ./
COPY ledger/ ledger/
COPY ingest/ ingest/
COPY processors/ processors/
COPY runtime/ runtime/
COPY cli/ cli/
COPY plexy_ledger/ plexy_ledger/
RUN python -m hatchling build --target wheel \
    && uv pip install --no-cache --compile-bytecode --no-deps dist/*.whl


FROM python:3.13.15-slim-bookworm@sha256:2325bb286ec344af3e5898cc224b5844e2707ac6e26b1632516fd3edc84a5e26

# A worker's tables are in the user's home folder. The folder is a volume, so the user must own it.
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/plexy-ledger ledger

COPY --from=build /opt/plexy-ledger /opt/plexy-ledger

ENV PATH=/opt/plexy-ledger/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LEDGER_DATA_DIR=/var/lib/plexy-ledger

USER 10001
WORKDIR /var/lib/plexy-ledger

ENTRYPOINT ["plexy-ledger"]
CMD ["--help"]
