"""The section ``model``: which network, and where its weights start from."""

from __future__ import annotations

from dataclasses import dataclass

from . import catalog
from .declare import FORBIDDEN, INVALID, PLACE, REQUIRED, Api, Cel, cel_list, key, rule

AVERAGE, RAW_WEIGHTS = "Average", "Raw"
"""Values of ``model.weightsKind``."""
INITIALIZATIONS = ("PyTorch", "XavierUniform", "KaimingNormal", "TruncatedNormal")
"""Values of ``model.initialization``."""
_WITHOUT_DROPOUT = [name for name in catalog.names() if not catalog.facts(name).has_dropout]


@dataclass(frozen=True)
class ModelConfig:
    """Model is the network to train."""

    # The trainer looks the name up in the catalog, whose error lists the networks.
    name: str = key(
        "bninception",
        api=Api(
            pattern=f"^({'|'.join((*catalog.names(), catalog.TIMM_NAME))})$",
            max_length=128,
        ),
    )
    """Name of the network: bninception, the default, which inception_v2 is another name of,
    inception_v3, inception_v4, inceptionv3_cifar, which is the Inception-v3 for small images, or
    resnet50, which is version 1.5; or timm/ and a name of the package timm, such as
    timm/convnext_tiny or timm/convnext_tiny.fb_in1k, which needs an image with that package.
    """

    weights: str | None = key(None, api=PLACE)
    """Weights is the absolute path, inside the container, or the URL of a state_dict, safetensors
    file or checkpoint to start from, or to evaluate, in the layout of torchvision, timm, Cadene,
    NVIDIA or the trainer itself. Without it training starts from random weights, and modes
    Evaluate, Infer and Export take the best checkpoint in the job's own directory.
    """

    weights_kind: str = key(AVERAGE, choices=(AVERAGE, RAW_WEIGHTS), api=Api(max_length=8))
    """WeightsKind is which weights are taken from a file that holds the running average (EMA) of
    the weights beside those that were trained, such as a checkpoint of timm, torchvision or the
    trainer. Average, the default, takes the average; Raw takes the weights that were trained. The
    log says which.
    """

    classifier: str = key("Load", choices=("Load", "New"), api=Api(max_length=8))
    """Classifier is what happens to the last layer when weights are loaded. Load, the default,
    takes it from the file, which must have as many classes as the data; New starts it afresh.
    """

    # Not in the fingerprint: it decides whether a file is read, never what it says.
    foreign_pickle: str = key("Refuse", choices=("Refuse", "Allow"), api=Api(max_length=8))
    """ForeignPickle is what a torch older than 2.10 does with weights that are pickled and not this
    job's own. Refuse, the default, reads none, because code hidden in such a file may run there
    (CVE-2025-32434, CVE-2026-24747); Allow reads them. A .safetensors file needs no permission.
    """

    dropout: float | None = key(None, at_least=0, below=1)
    """Dropout is the share of features before the last layer that training leaves out, a quoted
    decimal below 1. The default is "0.2" for inception_v3 and inception_v4 and "0.5" for
    inceptionv3_cifar; the other networks have none.
    """

    batch_norm: str = key(
        "PerRank", choices=("PerRank", "Synchronized", "Frozen"), api=Api(max_length=16)
    )
    """BatchNorm is over which samples batch norm takes its means while the network trains. PerRank,
    the default, takes the micro-batch of each rank; Synchronized takes those of all ranks together,
    at the cost of two exchanges per layer and step; Frozen takes the running means of the weights
    that training starts from, which stay as they are.
    """

    freeze: tuple[str, ...] | None = key(
        None,
        api=Api(
            min_length=1,
            max_length=128,
            max_items=64,
            item="Prefix is the beginning of the names of some parameters.",
        ),
    )
    """Freeze names the parameters that training leaves alone by how their names begin, for example
    conv1, layer1 and layer2. Batch norms among them keep their running means, too. An error names
    the parts of the network.
    """

    batch_norm_epsilon: float | None = key(None, above=0)
    """BatchNormEpsilon is what batch norm adds to a variance before it takes the root, a quoted
    decimal. The default is that of the published weights, "0.001" for inception_v3 and
    inception_v4 and "0.00001" for the other networks. Modes Evaluate, Infer and Export take that
    of the checkpoint.
    """

    batch_norm_momentum: float | None = key(None, above=0, at_most=1)
    """BatchNormMomentum is the share of the running means and variances that each micro-batch
    replaces, as PyTorch counts it, a quoted decimal above 0 and up to 1. The default is "0.1"; what
    TensorFlow and MindSpore call 0.997 is "0.003".
    """

    initialization: str | None = key(None, choices=INITIALIZATIONS)
    """Initialization is what the random weights of convolutions and linear layers are drawn from.
    PyTorch takes the defaults of PyTorch; XavierUniform draws evenly by inputs and outputs;
    KaimingNormal draws normal numbers by the inputs, for convolutions; TruncatedNormal draws normal
    numbers with a deviation of 0.1, as timm does for inception_v3. Without it each network has its
    own: XavierUniform for inception_v3 and inception_v4, KaimingNormal for resnet50, PyTorch for
    the others.
    """

    @rule(
        Cel(
            "self.?classifier.orValue('Load') != 'New' || has(self.weights)",
            message=(
                "spec.training.model.classifier New needs weights, because without them all layers "
                "are new"
            ),
            field="classifier",
            reason=INVALID,
        )
    )
    def new_classifier_needs_weights(self) -> str | None:
        """A classifier is started afresh only beside layers that are not."""
        if self.classifier != "New" or self.weights is not None:
            return None
        return (
            "model.classifier: New needs model.weights; without it every layer starts afresh anyway"
        )

    @rule(
        Cel(
            "has(self.weights) || self.?batchNorm.orValue('') != 'Frozen' && !has(self.freeze)",
            message=(
                "spec.training.model.freeze and batchNorm Frozen need weights, because random ones "
                "must be trained"
            ),
            field="weights",
            reason=REQUIRED,
        )
    )
    def frozen_layers_need_weights(self) -> str | None:
        """What never changes must have come from somewhere."""
        if self.weights is not None:
            return None
        if self.batch_norm == "Frozen":
            return "model.batchNorm: Frozen needs model.weights, whose running means it keeps"
        if self.freeze is not None:
            return "model.freeze: needs model.weights; random layers must be trained"
        return None

    @rule(
        Cel(
            f"!has(self.dropout) || !(self.?name.orValue('') in {cel_list(_WITHOUT_DROPOUT)})",
            message=(
                "spec.training.model.dropout does not go with this name, a network without "
                "dropout; leave it out"
            ),
            field="dropout",
            reason=FORBIDDEN,
        )
    )
    def dropout_needs_a_network_with_it(self) -> str | None:
        """Three of the networks have no dropout layer whose share could be set."""
        if self.dropout is None or catalog.facts(self.name).has_dropout:
            return None
        return f"model.dropout: {self.name} has no dropout; leave it out"
