"""The sections ``optimizer``, ``schedule``, ``loss`` and ``weightAverage``: how weights change."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .declare import (
    FORBIDDEN,
    REQUIRED,
    Api,
    Cel,
    api_rule,
    cel_list,
    key,
    listed,
    rule,
)

FALLING = ("Cosine", "Linear", "Polynomial")
"""Schedules that end at a rate of their own."""

WITH_SQUARES = ("RMSProp", "AdamW", "LAMB")
"""Optimizers that keep a running mean of squared gradients."""
LAYERWISE = ("LARS", "LAMB")
"""Optimizers that give each tensor of weights a rate of its own."""
PLAIN_MOMENTUM = (*WITH_SQUARES, "LARS")
"""Optimizers without Nesterov's form of the momentum."""

_EPOCHS = Api(maximum=100_000)


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer is the method that changes the weights."""

    name: str = key("SGD", choices=("SGD", "RMSProp", "AdamW", *LAYERWISE))
    """Name of the optimizer. SGD, the default, is that of PyTorch; RMSProp is that of TensorFlow,
    with epsilon inside the root and mean squares that begin at one; AdamW is that of PyTorch, whose
    decay does not go through the gradient. LARS and LAMB are for batches of thousands: SGD and Adam
    with a rate for each tensor of weights, by its length; norms and biases take the plain step.
    """

    learning_rate: float = key(0.1, above=0)
    """LearningRate is the highest learning rate of the schedule, a quoted decimal. The default is
    "0.1".
    """

    momentum: float = key(0.9, at_least=0, below=1)
    """Momentum is the share of the running gradient that each step keeps, the first beta of AdamW
    and LAMB, a quoted decimal below 1. The default is "0.9".
    """

    weight_decay: float = key(0.0001, at_least=0)
    """WeightDecay is the L2 penalty, a quoted decimal; of AdamW the share of the weights, times the
    learning rate, that each step takes off. The default is "0.0001".
    """

    nesterov: bool = key(False, of_method=True)
    """Nesterov chooses Nesterov's form of the momentum. The default is false."""

    # None, not 0.9: only so can a value beside SGD be told from the default.
    square_decay: float | None = key(None, at_least=0, below=1, of_method=True)
    """SquareDecay is the share of the running mean of squared gradients that RMSProp, AdamW and
    LAMB keep at each step, the second beta of the latter two, a quoted decimal below 1. The default
    is "0.9" for RMSProp and "0.999" for the others.
    """

    epsilon: float | None = key(None, above=0, of_method=True)
    """Epsilon is what RMSProp adds to the mean square before it takes the root, and AdamW and LAMB
    after it, a quoted decimal. The default is "1.0" for RMSProp, "0.00000001" for AdamW and
    "0.000001" for LAMB.
    """

    trust_coefficient: float | None = key(None, above=0, of_method=True)
    """TrustCoefficient is by how much of its own length LARS may change a tensor of weights in a
    step, times the learning rate, a quoted decimal. The default is "0.001".
    """

    layer_decay: float | None = key(None, above=0, at_most=1)
    """LayerDecay is the factor by which each block of the network learns more slowly than the block
    after it, for fine-tuning, a quoted decimal above 0 and up to 1, for example "0.75". The
    classifier learns at the learning rate itself. Without it all blocks do.
    """

    clip_norm: float | None = key(None, above=0)
    """ClipNorm is the longest that the gradient of all parameters together may be, a quoted
    decimal. A longer one is shortened to it. Without it nothing is clipped.
    """

    decay_exempt: str = key("Nothing", choices=("Nothing", "Norm", "NormAndBias"))
    """DecayExempt names the parameters that weightDecay leaves alone. Nothing, the default, spares
    none; Norm spares those of normalization layers; NormAndBias spares all biases too.
    """

    @rule()
    def nesterov_needs_momentum(self) -> str | None:
        """Nesterov's form looks ahead along the momentum; torch refuses it without."""
        if self.nesterov and self.momentum == 0:
            return "optimizer.nesterov: true needs optimizer.momentum above 0"
        return None

    @rule(
        Cel(
            f"!(self.?name.orValue('') in {cel_list(PLAIN_MOMENTUM)}) || "
            "!self.?nesterov.orValue(false)",
            message=(
                "spec.training.optimizer.nesterov does not go with name "
                f"{listed(PLAIN_MOMENTUM, 'or')}; leave it out"
            ),
            field="nesterov",
            reason=FORBIDDEN,
        )
    )
    def nesterov_needs_sgd(self) -> str | None:
        """The others have a plain momentum only."""
        if self.nesterov and self.name != "SGD":
            return f"optimizer.nesterov: {self.name} has no Nesterov form; leave it out"
        return None

    def with_defaults(self) -> OptimizerConfig:
        """The keys of one method alone, where not given: RMSProp's with the values of the Inception
        papers, AdamW's with those of PyTorch, those of LARS and LAMB with the papers'.
        """
        if self.name == "LARS":
            return replace(self, trust_coefficient=self.trust_coefficient or 0.001)
        defaults = {"RMSProp": (0.9, 1.0), "AdamW": (0.999, 1e-8), "LAMB": (0.999, 1e-6)}
        if self.name not in defaults:
            return self
        square_decay, epsilon = defaults[self.name]
        return replace(
            self,
            square_decay=square_decay if self.square_decay is None else self.square_decay,
            epsilon=epsilon if self.epsilon is None else self.epsilon,
        )


@dataclass(frozen=True)
class ScheduleConfig:
    """Schedule is how the learning rate changes over the epochs."""

    name: str = key("Cosine", choices=(*FALLING, "Step", "Exponential", "Constant"))
    """Name of the schedule. Cosine, the default, falls to finalLearningRate in half a cosine,
    Linear in a straight line, Polynomial in a curve of the given power; Step multiplies by gamma
    at the milestones or every stepEpochs; Exponential falls by gamma over stepEpochs, smoothly;
    Constant does not change.
    """

    # A file may hold half an epoch; the API takes integers, which need no quotes.
    warmup_epochs: float = key(0.0, at_least=0, api=Api(integer=True, maximum=100_000))
    """WarmupEpochs is the number of first epochs over which the learning rate rises linearly. The
    default is 0.
    """

    milestones: tuple[int, ...] = key(
        (),
        at_least=0,
        api=Api(
            minimum=1,
            maximum=100_000,
            max_items=64,
            item="Milestone is the number of an epoch, counted from 0.",
        ),
        of_method=True,
    )
    """Milestones are the epochs, counted from 0, with which schedule Step multiplies the learning
    rate by gamma.
    """

    gamma: float = key(0.1, above=0, at_most=1, of_method=True)
    """Gamma is the factor of the schedules Step and Exponential, a quoted decimal above 0 and up to
    1. The default is "0.1".
    """

    step_epochs: int | None = key(None, at_least=1, api=_EPOCHS, of_method=True)
    """StepEpochs is after how many epochs, again and again, schedule Step multiplies the learning
    rate by gamma. Schedule Exponential falls by this factor over as many epochs; its default is 1.
    """

    initial_learning_rate: float | None = key(None, at_least=0)
    """InitialLearningRate is where the rise over warmupEpochs begins, a quoted decimal. The default
    is "0".
    """

    final_learning_rate: float | None = key(None, at_least=0, of_method=True)
    """FinalLearningRate is what the schedules Cosine, Linear and Polynomial fall to, a quoted
    decimal. The default is "0".
    """

    power: float = key(2.0, above=0, of_method=True)
    """Power is that of schedule Polynomial: the part of the way that is left, to this power, a
    quoted decimal above 0. The default is "2", with which the schedule is that of MLPerf for
    ResNet-50.
    """

    start_epoch: int | None = key(None, at_least=1, api=_EPOCHS)
    """StartEpoch is the number of the epoch, counted from 0, that a training without checkpoint
    begins with, at its learning rate and with its order of samples. It is for model.weights that
    were trained for so many epochs elsewhere. Without it a training begins with epoch 0, or where
    its checkpoint is.
    """

    @rule(
        Cel(
            "self.?name.orValue('') != 'Step' || has(self.milestones) || has(self.stepEpochs)",
            message="spec.training.schedule needs milestones or stepEpochs with name Step",
            field="name",
            reason=REQUIRED,
        )
    )
    def steps_need_epochs(self) -> str | None:
        """Step without epochs would be Constant."""
        if self.name != "Step" or self.milestones or self.step_epochs:
            return None
        return "schedule.milestones: missing; schedule.name Step needs milestones or stepEpochs"

    # The trainer cannot refuse both: a recipe may bring the other one, and milestones win.
    one_kind_of_steps = api_rule(
        Cel(
            "!(has(self.milestones) && has(self.stepEpochs))",
            message="spec.training.schedule takes milestones or stepEpochs, not both",
            field="stepEpochs",
            reason=FORBIDDEN,
        )
    )

    @rule(
        Cel(
            f"!has(self.finalLearningRate) || self.?name.orValue('Cosine') in {cel_list(FALLING)}",
            message=(
                "spec.training.schedule.finalLearningRate goes with name "
                f"{listed(FALLING, 'or')} only"
            ),
            field="finalLearningRate",
            reason=FORBIDDEN,
        )
    )
    def final_rate_needs_a_falling_schedule(self) -> str | None:
        """The others end where their factor or their constant leads."""
        if self.final_learning_rate is None or self.name in FALLING:
            return None
        return f"schedule.finalLearningRate: only {listed(FALLING)} have it; leave it out"

    @rule()
    def initial_rate_needs_a_warmup(self) -> str | None:
        """Without a rise nothing begins at the initial rate; a recipe may bring the rise."""
        if self.initial_learning_rate is None or self.warmup_epochs:
            return None
        return (
            "schedule.initialLearningRate: needs schedule.warmupEpochs above 0, which rise from it"
        )


@dataclass(frozen=True)
class LossConfig:
    """Loss is what the optimizer makes small, a cross entropy."""

    name: str | None = key(None, choices=("CrossEntropy", "BinaryCrossEntropy"))
    """Name of the loss. CrossEntropy, the default, asks which class an image is of;
    BinaryCrossEntropy asks for every class whether it is, and takes the mean over the classes.
    Evaluation reports the cross entropy of both.
    """

    class_weights: tuple[float, ...] | None = key(
        None,
        at_least=0,
        api=Api(max_items=1000, item="ClassWeight is what one class counts."),
    )
    """ClassWeights are what images of each class count in the loss, in the order of the classes,
    quoted decimals such as "2.5". Without them each counts 1.
    """

    label_smoothing: float = key(0.0, at_least=0, below=1)
    """LabelSmoothing is the share of each label that is spread over all classes, a quoted decimal
    below 1. The default is "0".
    """

    # Not refused beside another precision: a recipe may hold it, and Auto may be FP16.
    scale: float | None = key(None, above=0)
    """Scale is what the loss is multiplied by, and gradients divided by, where the precision is
    FP16, a quoted decimal such as "1024". Without it the scale adjusts itself. A step whose
    gradients overflow changes nothing and is counted, in both cases.
    """

    # None: the default depends on the network, and 0 builds it without its auxiliary head.
    auxiliary_weight: float | None = key(None, at_least=0, at_most=10)
    """AuxiliaryWeight is what the auxiliary head of inception_v3 counts beside the classifier, a
    quoted decimal below 10. The default is "0.4" for inception_v3, which then needs images of 299
    pixels; "0" leaves the head out. It plays no part in evaluation.
    """


@dataclass(frozen=True)
class WeightAverageConfig:
    """WeightAverage is a running average of the weights (EMA). Where there is one it is what is
    evaluated, and what modes other than Train take from a checkpoint.
    """

    decay: float | None = key(None, above=0, below=1)
    """Decay is the share of the average that each update keeps, a quoted decimal above 0 and below
    1, for example "0.9999". It is smaller at the beginning. Without it there is no average.
    """

    every_steps: int = key(1, at_least=1, api=Api(maximum=1_000_000))
    """EverySteps is after how many optimizer steps the average is updated. The default is 1."""
