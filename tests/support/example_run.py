"""A run that sinks are told of."""

from __future__ import annotations

from inception_trainer.reporting.records import RunInfo

INFO = RunInfo(
    job="default/test",
    attempt=2,
    model="bninception",
    parameters=10,
    precision="FP32",
    device="cpu",
    profile="cpu",
    backend="gloo",
    rank=0,
    world_size=2,
    steps_per_epoch=10,
    total_steps=20,
    epochs=2,
    global_batch=8,
    start_step=5,
    config={"epochs": 2},
    output=None,
)
