"""The sections about looking at a network: ``evaluation``, ``benchmark``, ``inference``, ``export``
and ``profiler``; and ``preflight``, about looking at the machines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .declare import FORBIDDEN, PLACE, REQUIRED, Api, Cel, api_rule, key, rule

_MANY = Api(maximum=10**12)
_STEPS = Api(maximum=1_000_000)


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation is when the network is tested on the validation data, and on how much of it."""

    # None, not 1: with every_steps there is no rhythm in epochs.
    every_epochs: int | None = key(None, at_least=1, api=Api(maximum=100_000))
    """EveryEpochs is after how many epochs the network is tested. The default is 1; it is always
    tested at the end.
    """

    every_steps: int | None = key(None, at_least=1, api=_MANY)
    """EverySteps is after how many optimizer steps the network is tested, in the place of
    everyEpochs.
    """

    max_samples: int | None = key(None, at_least=1, api=_MANY)
    """MaxSamples is on how many validation images at most the network is tested in the modes Train
    and Evaluate, for a quick look. They are spread evenly over the validation data and are the same
    every time. Without it all are taken.
    """

    raw_weights: bool | None = key(None)
    """RawWeights tests the network itself besides its average, where weightAverage keeps one, and
    reports both accuracies. The best checkpoint and target go by the average. The default is false.
    """

    target: float | None = key(None, above=0, at_most=1)
    """Target is a top-1 accuracy from 0 to 1, a quoted decimal such as "0.759". A training that
    reaches it in an evaluation ends there, as done. Without it, it goes on to its last step.
    """

    patience: int | None = key(None, at_least=1, api=Api(maximum=100_000))
    """Patience is after how many evaluations in a row without a better top-1 accuracy a training
    ends, as done. Without it, it goes on to its last step.
    """

    @rule(
        Cel(
            "!(has(self.everyEpochs) && has(self.everySteps))",
            message="spec.training.evaluation takes everyEpochs or everySteps, not both",
            field="everySteps",
            reason=FORBIDDEN,
        )
    )
    def one_rhythm(self) -> str | None:
        """Epochs or steps: nobody could tell which rhythm a point of the curve belongs to."""
        if self.every_steps is None or self.every_epochs is None:
            return None
        return "evaluation.everySteps: does not go with everyEpochs; leave one of them out"

    def with_defaults(self) -> EvaluationConfig:
        """After each epoch, unless a rhythm is given."""
        if self.every_steps is not None:
            return self
        return replace(self, every_epochs=self.every_epochs or 1)


@dataclass(frozen=True)
class BenchmarkConfig:
    """Benchmark is how long mode Benchmark measures, and mode Infer for each of its batch sizes."""

    warmup_steps: int = key(10, at_least=1, api=_STEPS)
    """WarmupSteps is the number of first steps that count for nothing, because memory is allocated
    and kernels are chosen in them. The default is 10.
    """

    steps: int = key(50, at_least=1, api=_STEPS)
    """Steps is the number of steps that are measured. The default is 50."""

    batch: str = key("Configured", choices=("Configured", "Largest"), api=Api(max_length=16))
    """Batch is how many images mode Benchmark computes at once. Configured, the default, takes
    those of spec.training.batch; Largest seeks the largest micro-batch that every device has memory
    for, to an eighth, which needs accelerators.
    """


@dataclass(frozen=True)
class InferenceConfig:
    """Inference is what mode Infer classifies and measures."""

    path: str | None = key(None, api=PLACE)
    """Path is the absolute path, inside the container, of an image or of a directory whose images,
    at any depth, are classified, which the template must mount; or its URL in an object store.
    Without it the validation images of data are classified.
    """

    format: str = key("CSV", choices=("CSV", "JSONL", "None"), api=Api(max_length=8))
    """Format of the predictions, one image per line, in the file predictions.csv (CSV, the default)
    or predictions.jsonl (JSONL) of the directory infer below the output directory. With None no
    image is classified; only latencies are measured, without model.weights those of a random
    network.
    """

    top_classes: int = key(5, at_least=1, at_most=1000)
    """TopClasses is how many classes are listed for each image, the most probable first. The
    default is 5.
    """

    class_names: str | None = key(None, api=Api(pattern="^/.+", max_length=1024))
    """ClassNames is the absolute path, inside the container, of a file with the names of the
    classes: one per line, or in JSON a list or an object of numbers and names. Without it they are
    those of the checkpoint, or of the data.
    """

    batch_sizes: tuple[int, ...] = key(
        (),
        at_least=1,
        at_most=65_536,
        api=Api(max_items=16, item="BatchSize is a number of images."),
    )
    """BatchSizes are numbers of images per device whose latencies are measured: from pixels in the
    memory of the host to results there. Each is computed benchmark.steps times, after
    benchmark.warmupSteps times that do not count; percentiles are in summary.json.
    """


@dataclass(frozen=True)
class ExportConfig:
    """Export is what mode Export writes into the directory export below the output directory.
    Precision Auto is FP32 there.
    """

    formats: tuple[str, ...] = key(
        ("PT2",),
        choices=("PT2", "ONNX", "TorchScript", "Safetensors"),
        api=Api(
            max_items=4,
            max_length=16,
            list_type="set",
            item="Format is the kind of a file.",
        ),
    )
    """Formats of the files. PT2, the default, is the program of torch.export; ONNX is what
    compilers of other vendors read, and needs an image with the Python packages onnx, onnxscript
    and onnxruntime; TorchScript is a traced module; Safetensors holds the weights alone. Each file
    is read again, run and compared with the network; one that differs fails the job.
    """

    batch_size: int | None = key(None, at_least=1, at_most=65_536)
    """BatchSize is the only number of images that the file takes at once. Without it any number is.
    """


@dataclass(frozen=True)
class ProfilerConfig:
    """Profiler records optimizer steps with PyTorch's profiler on rank 0: the CPU and, where
    PyTorch can, the device. Modes Train and Benchmark write the files trace.json.gz, which Perfetto
    and TensorBoard show, and trace.txt, the operations that took longest, beside their
    summary.json.
    """

    steps: int | None = key(None, at_least=1, at_most=1000)
    """Steps is how many optimizer steps are recorded. They are slower, and no speed counts them; a
    handful is plenty, because thousands of operations of each are written. Without it nothing is
    recorded.
    """

    after_steps: int = key(10, at_least=0, api=_STEPS)
    """AfterSteps is how many steps of each attempt come first, so that what happens only at the
    beginning is not recorded. The default is 10. Mode Benchmark always records after the steps that
    it measures.
    """

    # The trainer sees a default here, not whether the key was written.
    after_steps_needs_steps = api_rule(
        Cel(
            "has(self.steps) || !has(self.afterSteps)",
            message=(
                "spec.training.profiler.afterSteps needs steps, without which nothing is recorded; "
                "set it or leave both out"
            ),
            field="steps",
            reason=REQUIRED,
        )
    )


@dataclass(frozen=True)
class PreflightConfig:
    """Preflight is how much mode Preflight tries on every rank."""

    samples: int = key(256, at_least=1, at_most=1_000_000)
    """Samples is how many training images each rank reads and decodes, others than the other ranks
    read where there are enough. The default is 256.
    """

    exchange_mebibytes: int = key(64, at_least=1, at_most=4096)
    """ExchangeMebibytes is the largest message that the ranks add up and exchange; it takes three
    times as much memory of each device. The default is 64.
    """

    write_mebibytes: int = key(16, at_least=1, at_most=65_536)
    """WriteMebibytes is the size of the file that each rank writes to the place of the checkpoints,
    reads back and removes. The default is 16.
    """
