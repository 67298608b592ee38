"""Baseline: a FastAPI route behind uvicorn that answers ten devices as JSON and does nothing else."""

import sys

import orjson
import uvicorn
from fastapi import FastAPI
from starlette.responses import Response

from benchmarks.processes import HOST
from benchmarks.stub_thingsboard import DEVICES

app = FastAPI()


@app.get("/devices")
async def list_devices() -> Response:
    """Answer ten devices."""
    return Response(orjson.dumps({"data": DEVICES}), media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, host=HOST, port=int(sys.argv[1]), access_log=False, log_level="warning", loop="uvloop")
