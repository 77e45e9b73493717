"""The fields of an InceptionTraining as types, by the names that they have in the API.

This file is made from `manifests/crd.yaml` by `manifests/generate_sdk_fields.py`.
"""

from typing import Any, Literal, Required, TypedDict

Json = dict[str, Any]
Decimal = str | float
"""A decimal number, which is a string in the API."""


class SpecTrainingModel(TypedDict, total=False):
    """Model is the network to train."""

    name: str
    """Name of the network: bninception, the default, which inception_v2 is another name of,
    inception_v3, inception_v4, inceptionv3_cifar, which is the Inception-v3 for small images, or
    resnet50, which is version 1.5; or timm/ and a name of the package timm, such as
    timm/convnext_tiny or timm/convnext_tiny.fb_in1k, which needs an image with that package."""

    weights: str
    """Weights is the absolute path, inside the container, or the URL of a state_dict, safetensors
    file or checkpoint to start from, or to evaluate, in the layout of torchvision, timm, Cadene,
    NVIDIA or the trainer itself. Without it training starts from random weights, and modes
    Evaluate, Infer and Export take the best checkpoint in the job's own directory."""

    weightsKind: Literal["Average", "Raw"]
    """WeightsKind is which weights are taken from a file that holds the running average (EMA) of
    the weights beside those that were trained, such as a checkpoint of timm, torchvision or the
    trainer. Average, the default, takes the average; Raw takes the weights that were trained. The
    log says which."""

    classifier: Literal["Load", "New"]
    """Classifier is what happens to the last layer when weights are loaded. Load, the default,
    takes it from the file, which must have as many classes as the data; New starts it afresh."""

    foreignPickle: Literal["Refuse", "Allow"]
    """ForeignPickle is what a torch older than 2.10 does with weights that are pickled and not this
    job's own. Refuse, the default, reads none, because code hidden in such a file may run there
    (CVE-2025-32434, CVE-2026-24747); Allow reads them. A .safetensors file needs no permission."""

    dropout: Decimal
    """Dropout is the share of features before the last layer that training leaves out, a quoted
    decimal below 1. The default is "0.2" for inception_v3 and inception_v4 and "0.5" for
    inceptionv3_cifar; the other networks have none."""

    batchNorm: Literal["PerRank", "Synchronized", "Frozen"]
    """BatchNorm is over which samples batch norm takes its means while the network trains. PerRank,
    the default, takes the micro-batch of each rank; Synchronized takes those of all ranks together,
    at the cost of two exchanges per layer and step; Frozen takes the running means of the weights
    that training starts from, which stay as they are."""

    freeze: list[str]
    """Freeze names the parameters that training leaves alone by how their names begin, for example
    conv1, layer1 and layer2. Batch norms among them keep their running means, too. An error names
    the parts of the network."""

    batchNormEpsilon: Decimal
    """BatchNormEpsilon is what batch norm adds to a variance before it takes the root, a quoted
    decimal. The default is that of the published weights, "0.001" for inception_v3 and inception_v4
    and "0.00001" for the other networks. Modes Evaluate, Infer and Export take that of the
    checkpoint."""

    batchNormMomentum: Decimal
    """BatchNormMomentum is the share of the running means and variances that each micro-batch
    replaces, as PyTorch counts it, a quoted decimal above 0 and up to 1. The default is "0.1"; what
    TensorFlow and MindSpore call 0.997 is "0.003"."""

    initialization: Literal["PyTorch", "XavierUniform", "KaimingNormal", "TruncatedNormal"]
    """Initialization is what the random weights of convolutions and linear layers are drawn from.
    PyTorch takes the defaults of PyTorch; XavierUniform draws evenly by inputs and outputs;
    KaimingNormal draws normal numbers by the inputs, for convolutions; TruncatedNormal draws normal
    numbers with a deviation of 0.1, as timm does for inception_v3. Without it each network has its
    own: XavierUniform for inception_v3 and inception_v4, KaimingNormal for resnet50, PyTorch for
    the others."""


class SpecTrainingDataCache(TypedDict, total=False):
    """Cache keeps the files of kind ImageFolder and ImageList, and the samples of kind WebDataset,
    near as soon as they were read once: for data in object stores and on slow volumes. The ranks of
    a pod share it, and the attempts that follow in the pod find it filled; files must not change
    meanwhile. Nothing is thrown out: what is left when it is full is read again in each epoch."""

    memoryMebibytes: int
    """MemoryMebibytes is the most memory in MiB that the ranks of a pod keep files in together. It
    counts towards the memory limit of the pod, which must leave 256 MiB beside it, and is part of
    the memory that is requested where the template says nothing. Without it nothing is kept in
    memory."""

    diskMebibytes: int
    """DiskMebibytes is the most space in MiB that the ranks of a pod keep files in together, in the
    folder for temporary files (TMPDIR) of the container; what does not fit into memory goes there.
    The volume at /tmp may be larger by as much, unless the template brings its own. Without it
    nothing is kept on a disk."""

    fill: Literal["OnRead", "Shards"]
    """Fill is when a sample comes into the cache. OnRead, the default, keeps it when it is read
    first; Shards, of kind WebDataset alone, also fetches whole shards ahead, one after the other in
    pieces of 16 MiB and four at a time, until all are there or the cache is full. A slow store then
    answers one request for hundreds of samples."""


class SpecTrainingData(TypedDict, total=False):
    """Data is where the samples come from. The kind is required unless a recipe names it."""

    kind: Literal[
        "Digits",
        "Synthetic",
        "ImageFolder",
        "ImageList",
        "WebDataset",
        "Cifar10",
        "Cifar100",
    ]
    """Kind of the data. Digits is the small set of handwritten digits that the image carries,
    Synthetic is generated, ImageFolder reads one directory per class below path, ImageList reads
    train.txt and val.txt with a file and a class number per line, WebDataset reads tar shards,
    Cifar10 and Cifar100 read CIFAR-10 and CIFAR-100 (fine labels) in their python or binary
    layout."""

    path: str
    """Path is the absolute directory inside the container that holds the data of kind ImageFolder
    (train/ and val/), ImageList (train.txt and val.txt), WebDataset (the shards), Cifar10 or
    Cifar100, which the template must mount; or its URL in an object store, such as
    s3://bucket/imagenet, for which the template must give the container credentials and the image
    the store's package."""

    trainShards: str
    """TrainShards names the shards of kind WebDataset that are trained on, below path: a file, a
    directory, a pattern with * and ?, or braces such as train-{000000..000099}.tar. The default is
    the directory train, or else all files of path with train in their name."""

    valShards: str
    """ValShards names the shards of kind WebDataset that are evaluated, like trainShards. The
    default is the directory val, or else all files of path with val in their name."""

    labelKey: str
    """LabelKey is the key, in the json member of each sample of kind WebDataset, that holds the
    number of its class. Without it the number is read from the cls member."""

    heldOutShare: Decimal
    """HeldOutShare is the share of the training images of each class that is held out and
    evaluated, for data without validation images of its own, a quoted decimal above 0 and below 1
    such as "0.1". Those of the data, if there are any, are then not read. Which images are held out
    depends on their names alone, so it is the same in every attempt and in mode Evaluate. Without
    it the data must have validation images."""

    imageSize: int
    """ImageSize is the side of the square input in pixels. The default is that of the network's
    published weights, 224, 299 or 32 pixels, and for digits and CIFAR the smallest that it takes
    from 32 on."""

    numClasses: int
    """NumClasses is the number of classes. Without it the data says it; synthetic data has 1000."""

    samples: int
    """Samples is the number of generated samples of kind Synthetic. The default is 1024."""

    maxPixels: int
    """MaxPixels is how many pixels, width times height, an image file may have; a larger one counts
    as one that cannot be read. While it is decoded it takes four bytes or more for each of them.
    The default is 100000000."""

    maxCorrupt: int
    """MaxCorrupt is how many images that cannot be read a rank skips before the job fails. Each is
    named in the log with the reason. The default is one in a hundred, and ten of a small set."""

    workers: int
    """Workers is the number of loader processes of each rank. The default goes by the CPUs that the
    rank may use: one fewer, from 1 to 16, beside an accelerator; 2, or 1 of a single CPU, where the
    CPU computes; 0 for digits, synthetic data and CIFAR. Where the loader is the limit, the log
    says so and how many workers would do."""

    cache: SpecTrainingDataCache
    """Cache keeps the files of kind ImageFolder and ImageList, and the samples of kind WebDataset,
    near as soon as they were read once: for data in object stores and on slow volumes. The ranks of
    a pod share it, and the attempts that follow in the pod find it filled; files must not change
    meanwhile. Nothing is thrown out: what is left when it is full is read again in each epoch."""

    normalization: Literal[
        "Auto",
        "Data",
        "ImageNet",
        "Inception",
        "CIFAR10",
        "CIFAR100",
        "CaffeBGR",
    ]
    """Normalization is how pixels become inputs of the network. Auto, the default, is that of the
    weights the training starts from, else that of the data; Data is always that of the data; the
    others are named sets of mean, deviation, range and order of colours."""

    evaluationCropRatio: Decimal
    """EvaluationCropRatio is the side of the square in the centre that evaluation sees of an image
    of kind ImageFolder, ImageList or WebDataset, as a share of the image's short side, a quoted
    decimal above 0 and up to 1. The default is "0.875", 224 of 256 pixels."""

    interpolation: Literal["Bilinear", "Bicubic", "Nearest"]
    """Interpolation is how images are scaled to imageSize, in training, evaluation and mode Infer.
    Bilinear, the default, and Bicubic average the pixels of image files that shrink; Nearest takes
    the nearest pixel. Synthetic images are never scaled."""

    exifOrientation: Literal["Ignore", "Apply"]
    """ExifOrientation is what is done with the note of a camera on how an image file must be turned
    to stand upright. Ignore, the default, takes the pixels as they are stored, as torchvision does;
    Apply turns them, in training, evaluation and mode Infer."""


SpecTrainingBatch = TypedDict(
    "SpecTrainingBatch",
    {
        "global": int,
        "perDevice": int,
    },
    total=False,
)
"""Batch is how many samples each optimizer step and each device takes."""


class SpecTrainingOptimizer(TypedDict, total=False):
    """Optimizer is the method that changes the weights."""

    name: Literal["SGD", "RMSProp", "AdamW", "LARS", "LAMB"]
    """Name of the optimizer. SGD, the default, is that of PyTorch; RMSProp is that of TensorFlow,
    with epsilon inside the root and mean squares that begin at one; AdamW is that of PyTorch, whose
    decay does not go through the gradient. LARS and LAMB are for batches of thousands: SGD and Adam
    with a rate for each tensor of weights, by its length; norms and biases take the plain step."""

    learningRate: Decimal
    """LearningRate is the highest learning rate of the schedule, a quoted decimal. The default is
    "0.1"."""

    momentum: Decimal
    """Momentum is the share of the running gradient that each step keeps, the first beta of AdamW
    and LAMB, a quoted decimal below 1. The default is "0.9"."""

    weightDecay: Decimal
    """WeightDecay is the L2 penalty, a quoted decimal; of AdamW the share of the weights, times the
    learning rate, that each step takes off. The default is "0.0001"."""

    nesterov: bool
    """Nesterov chooses Nesterov's form of the momentum. The default is false."""

    squareDecay: Decimal
    """SquareDecay is the share of the running mean of squared gradients that RMSProp, AdamW and
    LAMB keep at each step, the second beta of the latter two, a quoted decimal below 1. The default
    is "0.9" for RMSProp and "0.999" for the others."""

    epsilon: Decimal
    """Epsilon is what RMSProp adds to the mean square before it takes the root, and AdamW and LAMB
    after it, a quoted decimal. The default is "1.0" for RMSProp, "0.00000001" for AdamW and
    "0.000001" for LAMB."""

    trustCoefficient: Decimal
    """TrustCoefficient is by how much of its own length LARS may change a tensor of weights in a
    step, times the learning rate, a quoted decimal. The default is "0.001"."""

    layerDecay: Decimal
    """LayerDecay is the factor by which each block of the network learns more slowly than the block
    after it, for fine-tuning, a quoted decimal above 0 and up to 1, for example "0.75". The
    classifier learns at the learning rate itself. Without it all blocks do."""

    clipNorm: Decimal
    """ClipNorm is the longest that the gradient of all parameters together may be, a quoted
    decimal. A longer one is shortened to it. Without it nothing is clipped."""

    decayExempt: Literal["Nothing", "Norm", "NormAndBias"]
    """DecayExempt names the parameters that weightDecay leaves alone. Nothing, the default, spares
    none; Norm spares those of normalization layers; NormAndBias spares all biases too."""


class SpecTrainingSchedule(TypedDict, total=False):
    """Schedule is how the learning rate changes over the epochs."""

    name: Literal["Cosine", "Linear", "Polynomial", "Step", "Exponential", "Constant"]
    """Name of the schedule. Cosine, the default, falls to finalLearningRate in half a cosine,
    Linear in a straight line, Polynomial in a curve of the given power; Step multiplies by gamma at
    the milestones or every stepEpochs; Exponential falls by gamma over stepEpochs, smoothly;
    Constant does not change."""

    warmupEpochs: int
    """WarmupEpochs is the number of first epochs over which the learning rate rises linearly. The
    default is 0."""

    milestones: list[int]
    """Milestones are the epochs, counted from 0, with which schedule Step multiplies the learning
    rate by gamma."""

    gamma: Decimal
    """Gamma is the factor of the schedules Step and Exponential, a quoted decimal above 0 and up to
    1. The default is "0.1"."""

    stepEpochs: int
    """StepEpochs is after how many epochs, again and again, schedule Step multiplies the learning
    rate by gamma. Schedule Exponential falls by this factor over as many epochs; its default is
    1."""

    initialLearningRate: Decimal
    """InitialLearningRate is where the rise over warmupEpochs begins, a quoted decimal. The default
    is "0"."""

    finalLearningRate: Decimal
    """FinalLearningRate is what the schedules Cosine, Linear and Polynomial fall to, a quoted
    decimal. The default is "0"."""

    power: Decimal
    """Power is that of schedule Polynomial: the part of the way that is left, to this power, a
    quoted decimal above 0. The default is "2", with which the schedule is that of MLPerf for
    ResNet-50."""

    startEpoch: int
    """StartEpoch is the number of the epoch, counted from 0, that a training without checkpoint
    begins with, at its learning rate and with its order of samples. It is for model.weights that
    were trained for so many epochs elsewhere. Without it a training begins with epoch 0, or where
    its checkpoint is."""


class SpecTrainingLoss(TypedDict, total=False):
    """Loss is what the optimizer makes small, a cross entropy."""

    name: Literal["CrossEntropy", "BinaryCrossEntropy"]
    """Name of the loss. CrossEntropy, the default, asks which class an image is of;
    BinaryCrossEntropy asks for every class whether it is, and takes the mean over the classes.
    Evaluation reports the cross entropy of both."""

    classWeights: list[Decimal]
    """ClassWeights are what images of each class count in the loss, in the order of the classes,
    quoted decimals such as "2.5". Without them each counts 1."""

    labelSmoothing: Decimal
    """LabelSmoothing is the share of each label that is spread over all classes, a quoted decimal
    below 1. The default is "0"."""

    scale: Decimal
    """Scale is what the loss is multiplied by, and gradients divided by, where the precision is
    FP16, a quoted decimal such as "1024". Without it the scale adjusts itself. A step whose
    gradients overflow changes nothing and is counted, in both cases."""

    auxiliaryWeight: Decimal
    """AuxiliaryWeight is what the auxiliary head of inception_v3 counts beside the classifier, a
    quoted decimal below 10. The default is "0.4" for inception_v3, which then needs images of 299
    pixels; "0" leaves the head out. It plays no part in evaluation."""


class SpecTrainingAugmentationColorJitter(TypedDict, total=False):
    """ColorJitter changes the colours of every training image. Each of its values x stands for a
    factor that is drawn evenly from 1 - x to 1 + x for each image and epoch."""

    brightness: Decimal
    """Brightness is how far the factor of all pixels may be from 1, a quoted decimal up to 1. The
    default is "0"."""

    contrast: Decimal
    """Contrast is how far the factor of the distance to the mean grey of the image may be from 1, a
    quoted decimal up to 1. The default is "0"."""

    saturation: Decimal
    """Saturation is how far the factor of the distance of each pixel to its grey may be from 1, a
    quoted decimal up to 1. The default is "0"."""


class SpecTrainingAugmentationRandAugment(TypedDict, total=False):
    """RandAugment applies two random changes to every training image, each in half of the cases,
    out of fifteen such as rotation, shear, equalization and solarization."""

    magnitude: int
    """Magnitude is how strong the changes are, from 1 to 10. Without it there are none."""

    deviation: Decimal
    """Deviation is the standard deviation of the magnitude, which is drawn for each change and cut
    to 0 to 10, a quoted decimal below 10. The default is "0.5"."""


class SpecTrainingAugmentation(TypedDict, total=False):
    """Augmentation is what is done to training images, besides what their kind always has done."""

    mixup: Decimal
    """Mixup blends every image, and its loss, with another one of its micro-batch. The value is the
    parameter of the Beta distribution that the share is drawn from at every step, a quoted decimal
    above 0 and up to 1, for example "0.2". Without it nothing is blended."""

    cutMix: Decimal
    """CutMix replaces a random rectangle of every image by that of another one of its micro-batch,
    and mixes their losses by area. The value is the parameter of the Beta distribution that the
    area is drawn from at every step, a quoted decimal above 0 and up to 1, for example "1". Beside
    mixup each of the two takes half of the steps."""

    mixOffEpochs: int
    """MixOffEpochs is how many of the last epochs are trained without mixup and cutMix."""

    colorJitter: SpecTrainingAugmentationColorJitter
    """ColorJitter changes the colours of every training image. Each of its values x stands for a
    factor that is drawn evenly from 1 - x to 1 + x for each image and epoch."""

    randAugment: SpecTrainingAugmentationRandAugment
    """RandAugment applies two random changes to every training image, each in half of the cases,
    out of fifteen such as rotation, shear, equalization and solarization."""

    trivialAugment: bool
    """TrivialAugment applies one random change of fourteen, of a random magnitude, to every
    training image. The default is false."""

    autoAugment: Literal["ImageNet", "Cifar10"]
    """AutoAugment changes every training image by one of 25 pairs of changes, which are those that
    were found best for ImageNet or for Cifar10. Without it nothing is changed."""

    rotation: int
    """Rotation is by how many degrees at most, either way, images of the kinds Cifar10 and Cifar100
    are turned at random. The default is 15; 0 turns none. Images of other kinds are not turned by
    it."""

    randomErasing: Decimal
    """RandomErasing is the share of training images in which noise replaces a random rectangle of 2
    to 33 % of the area, a quoted decimal above 0 and up to 1. Without it nothing is erased."""


class SpecTrainingWeightAverage(TypedDict, total=False):
    """WeightAverage is a running average of the weights (EMA). Where there is one it is what is
    evaluated, and what modes other than Train take from a checkpoint."""

    decay: Decimal
    """Decay is the share of the average that each update keeps, a quoted decimal above 0 and below
    1, for example "0.9999". It is smaller at the beginning. Without it there is no average."""

    everySteps: int
    """EverySteps is after how many optimizer steps the average is updated. The default is 1."""


class SpecTrainingEvaluation(TypedDict, total=False):
    """Evaluation is when the network is tested on the validation data, and on how much of it."""

    everyEpochs: int
    """EveryEpochs is after how many epochs the network is tested. The default is 1; it is always
    tested at the end."""

    everySteps: int
    """EverySteps is after how many optimizer steps the network is tested, in the place of
    everyEpochs."""

    maxSamples: int
    """MaxSamples is on how many validation images at most the network is tested in the modes Train
    and Evaluate, for a quick look. They are spread evenly over the validation data and are the same
    every time. Without it all are taken."""

    rawWeights: bool
    """RawWeights tests the network itself besides its average, where weightAverage keeps one, and
    reports both accuracies. The best checkpoint and target go by the average. The default is
    false."""

    target: Decimal
    """Target is a top-1 accuracy from 0 to 1, a quoted decimal such as "0.759". A training that
    reaches it in an evaluation ends there, as done. Without it, it goes on to its last step."""

    patience: int
    """Patience is after how many evaluations in a row without a better top-1 accuracy a training
    ends, as done. Without it, it goes on to its last step."""


class SpecTrainingBenchmark(TypedDict, total=False):
    """Benchmark is how long mode Benchmark measures, and mode Infer for each of its batch sizes."""

    warmupSteps: int
    """WarmupSteps is the number of first steps that count for nothing, because memory is allocated
    and kernels are chosen in them. The default is 10."""

    steps: int
    """Steps is the number of steps that are measured. The default is 50."""

    batch: Literal["Configured", "Largest"]
    """Batch is how many images mode Benchmark computes at once. Configured, the default, takes
    those of spec.training.batch; Largest seeks the largest micro-batch that every device has memory
    for, to an eighth, which needs accelerators."""


class SpecTrainingInference(TypedDict, total=False):
    """Inference is what mode Infer classifies and measures."""

    path: str
    """Path is the absolute path, inside the container, of an image or of a directory whose images,
    at any depth, are classified, which the template must mount; or its URL in an object store.
    Without it the validation images of data are classified."""

    format: Literal["CSV", "JSONL", "None"]
    """Format of the predictions, one image per line, in the file predictions.csv (CSV, the default)
    or predictions.jsonl (JSONL) of the directory infer below the output directory. With None no
    image is classified; only latencies are measured, without model.weights those of a random
    network."""

    topClasses: int
    """TopClasses is how many classes are listed for each image, the most probable first. The
    default is 5."""

    classNames: str
    """ClassNames is the absolute path, inside the container, of a file with the names of the
    classes: one per line, or in JSON a list or an object of numbers and names. Without it they are
    those of the checkpoint, or of the data."""

    batchSizes: list[int]
    """BatchSizes are numbers of images per device whose latencies are measured: from pixels in the
    memory of the host to results there. Each is computed benchmark.steps times, after
    benchmark.warmupSteps times that do not count; percentiles are in summary.json."""


class SpecTrainingExport(TypedDict, total=False):
    """Export is what mode Export writes into the directory export below the output directory.
    Precision Auto is FP32 there."""

    formats: list[Literal["PT2", "ONNX", "TorchScript", "Safetensors"]]
    """Formats of the files. PT2, the default, is the program of torch.export; ONNX is what
    compilers of other vendors read, and needs an image with the Python packages onnx, onnxscript
    and onnxruntime; TorchScript is a traced module; Safetensors holds the weights alone. Each file
    is read again, run and compared with the network; one that differs fails the job."""

    batchSize: int
    """BatchSize is the only number of images that the file takes at once. Without it any number
    is."""


class SpecTrainingPreflight(TypedDict, total=False):
    """Preflight is how much mode Preflight tries on every rank."""

    samples: int
    """Samples is how many training images each rank reads and decodes, others than the other ranks
    read where there are enough. The default is 256."""

    exchangeMebibytes: int
    """ExchangeMebibytes is the largest message that the ranks add up and exchange; it takes three
    times as much memory of each device. The default is 64."""

    writeMebibytes: int
    """WriteMebibytes is the size of the file that each rank writes to the place of the checkpoints,
    reads back and removes. The default is 16."""


class SpecTrainingProfiler(TypedDict, total=False):
    """Profiler records optimizer steps with PyTorch's profiler on rank 0: the CPU and, where
    PyTorch can, the device. Modes Train and Benchmark write the files trace.json.gz, which Perfetto
    and TensorBoard show, and trace.txt, the operations that took longest, beside their
    summary.json."""

    steps: int
    """Steps is how many optimizer steps are recorded. They are slower, and no speed counts them; a
    handful is plenty, because thousands of operations of each are written. Without it nothing is
    recorded."""

    afterSteps: int
    """AfterSteps is how many steps of each attempt come first, so that what happens only at the
    beginning is not recorded. The default is 10. Mode Benchmark always records after the steps that
    it measures."""


class SpecTrainingTrackingMlflow(TypedDict, total=False):
    """Mlflow reports to MLflow, for which the image needs the Python package mlflow or mlflow-
    skinny."""

    uri: str
    """Uri is the http or https URL of a tracking server, or the absolute directory, inside the
    container, of a file store. Credentials of a server come from the environment, in a job from a
    Secret. Without it nothing is reported to MLflow."""

    experiment: str
    """Experiment is the name of the experiment that runs belong to, which is made if it is not
    there. The default is inception."""


class SpecTrainingTrackingWandb(TypedDict, total=False):
    """Wandb keeps a run of Weights & Biases below the output directory, offline, from where wandb
    sync uploads it. The image needs the Python package wandb."""

    project: str
    """Project is the name of the project that runs belong to. Without it nothing is kept."""


class SpecTrainingTracking(TypedDict, total=False):
    """Tracking is which experiment trackers mode Train reports its curves to, besides the files in
    the output directory. All attempts of a job are one run. A tracker that is missing or does not
    answer never holds up the training: the log says so once."""

    mlflow: SpecTrainingTrackingMlflow
    """Mlflow reports to MLflow, for which the image needs the Python package mlflow or mlflow-
    skinny."""

    wandb: SpecTrainingTrackingWandb
    """Wandb keeps a run of Weights & Biases below the output directory, offline, from where wandb
    sync uploads it. The image needs the Python package wandb."""


class SpecTraining(TypedDict, total=False):
    """Training is what the bundled trainer does: data, network, length and method. Decimal numbers
    are quoted strings. The trainer reads the same keys from its own YAML file outside Kubernetes.
    It is required, unless the container trainer of the template brings a command of its own."""

    mode: Literal["Train", "Evaluate", "Benchmark", "Infer", "Export", "Preflight"]
    """Mode is what to do with the network. Train is the default. Evaluate measures a trained
    network on the validation data; Benchmark measures the speed of training steps; Infer classifies
    images with a trained network; Export writes it in forms that other programs run; Preflight
    tries devices, network, data and the place of checkpoints on every rank and leaves nothing
    behind. Modes other than Train change no checkpoint; all but Preflight write their summary.json
    below the output directory, in a directory named after the mode."""

    recipe: str
    """Recipe is the name of a preset of the trainer, for example bninception-digits. It sets all
    keys; every key given here overrides it."""

    model: SpecTrainingModel
    """Model is the network to train."""

    data: SpecTrainingData
    """Data is where the samples come from. The kind is required unless a recipe names it."""

    batch: SpecTrainingBatch
    """Batch is how many samples each optimizer step and each device takes."""

    epochs: int
    """Epochs is how many times the training data is seen. The default is 1."""

    maxSteps: int
    """MaxSteps ends the training after this many optimizer steps, if the epochs do not end it
    before."""

    optimizer: SpecTrainingOptimizer
    """Optimizer is the method that changes the weights."""

    schedule: SpecTrainingSchedule
    """Schedule is how the learning rate changes over the epochs."""

    loss: SpecTrainingLoss
    """Loss is what the optimizer makes small, a cross entropy."""

    augmentation: SpecTrainingAugmentation
    """Augmentation is what is done to training images, besides what their kind always has done."""

    weightAverage: SpecTrainingWeightAverage
    """WeightAverage is a running average of the weights (EMA). Where there is one it is what is
    evaluated, and what modes other than Train take from a checkpoint."""

    precision: Literal["Auto", "FP32", "TF32", "BF16", "FP16"]
    """Precision of the computation. Auto, the default, takes what is best on the device and says
    so; FP32 computes in single precision, products of matrices and convolutions too; TF32 rounds
    the factors of these to ten bits behind the point (CUDA since Ampere); BF16 computes in bfloat16
    with FP32 weights; FP16 computes in half precision with FP32 weights and a loss scale that
    adjusts itself, or is loss.scale."""

    execution: Literal["Eager", "Compiled", "CompiledGraphs"]
    """Execution is how the network runs. Eager, the default, runs it operation by operation;
    Compiled has PyTorch compile it at the first step, which takes a minute or more and needs a
    compiler and the headers of Python in the image; CompiledGraphs also records graphs of kernels,
    which saves their launches (CUDA and ROCm only, PyTorch's mode reduce-overhead). What is missing
    ends the job before its first step."""

    seed: int
    """Seed of all random numbers. With the same seed the order of the samples is the same over
    restarts and numbers of ranks. The default is 0."""

    evaluation: SpecTrainingEvaluation
    """Evaluation is when the network is tested on the validation data, and on how much of it."""

    benchmark: SpecTrainingBenchmark
    """Benchmark is how long mode Benchmark measures, and mode Infer for each of its batch sizes."""

    inference: SpecTrainingInference
    """Inference is what mode Infer classifies and measures."""

    export: SpecTrainingExport
    """Export is what mode Export writes into the directory export below the output directory.
    Precision Auto is FP32 there."""

    preflight: SpecTrainingPreflight
    """Preflight is how much mode Preflight tries on every rank."""

    cpuAffinity: Literal["Shared", "PerRank"]
    """CpuAffinity is which CPUs a rank may use. With Shared, the default, all ranks of a pod share
    those of the pod; with PerRank each rank, its threads and its loader processes are pinned to a
    part of their own, in which the threads of a core and the cores of a package are neighbours.
    PerRank helps pods of several ranks that have their node, or by the kubelet's static CPU policy
    their CPUs, for themselves; two pods that share CPUs would be pinned to the same ones. It needs
    at least one CPU per rank."""

    logEverySteps: int
    """LogEverySteps is after how many steps figures are read back from the device and reported. The
    default is 10."""

    profiler: SpecTrainingProfiler
    """Profiler records optimizer steps with PyTorch's profiler on rank 0: the CPU and, where
    PyTorch can, the device. Modes Train and Benchmark write the files trace.json.gz, which Perfetto
    and TensorBoard show, and trace.txt, the operations that took longest, beside their
    summary.json."""

    tracking: SpecTrainingTracking
    """Tracking is which experiment trackers mode Train reports its curves to, besides the files in
    the output directory. All attempts of a job are one run. A tracker that is missing or does not
    answer never holds up the training: the log says so once."""


class SpecAcceleratorClaims(TypedDict, total=False):
    """Claim is one ResourceClaim of each pod."""

    name: Required[str]
    """Name of the claim within the pod, for example devices."""

    resourceClaimTemplateName: str
    """ResourceClaimTemplateName is the name of a ResourceClaimTemplate in the namespace of the job.
    It may ask for anything, and numProcPerNode must then be a number."""

    deviceClassName: str
    """DeviceClassName is the name of a DeviceClass, for example gpu.nvidia.com. The operator makes
    a ResourceClaimTemplate for it, which belongs to the job."""

    count: int
    """Count is how many devices of the class each pod gets, 1 without it. With this one claim
    alone, numProcPerNode auto means one rank on every device."""


class SpecAccelerator(TypedDict, total=False):
    """Accelerator says which devices a node gets. The default is the CPU."""

    profile: str
    """Profile is the name of a row of the operator's table of accelerators, for example cpu, nvidia
    or cambricon. It sets the name of the resource, the torch device, the collective library and
    what the pods need besides."""

    resourceName: str
    """ResourceName is the exact name of the extended resource that counts the devices, for clusters
    where it differs from the profile's, for example cambricon.com/mlu370. It is required for
    profiles whose vendor's name is not known."""

    devicesPerNode: int
    """DevicesPerNode is how many devices each node gets. Without it, it is what the trainer
    container of the template requests, else 1."""

    claims: list[SpecAcceleratorClaims]
    """Claims are what each pod claims by Dynamic Resource Allocation, for clusters whose devices
    are offered by a DRA driver instead of an extended resource. Each pod gets ResourceClaims of its
    own, and the trainer container all devices of them. Kubernetes 1.34 or newer is needed."""


class SpecElasticPolicy(TypedDict, total=False):
    """ElasticPolicy lets the job go on with fewer nodes than wanted, follow changes of numNodes
    while it runs and keep hot spares. Each change of size is a new attempt that goes on from a
    checkpoint and counts as no restart. The global batch and the learning rate stay the same at
    every size. Its fields can change at any time."""

    minNodes: int
    """MinNodes is the least number of nodes that an attempt may start with while others are
    missing. The job grows back to numNodes when they return. Without it the job waits for all of
    them."""

    maxNodes: int
    """MaxNodes is the greatest value that numNodes may be set to. Without it there is no limit."""

    spareNodes: int
    """SpareNodes is how many pods wait warm beside the numNodes that train, with devices of their
    own. One of them takes the place of a lost pod at once."""


class SpecTemplateMetadata(TypedDict, total=False):
    """Metadata holds labels and annotations that are added to the pods."""

    labels: dict[str, str]
    """Labels are added to the pods. Labels of the operator cannot be replaced."""

    annotations: dict[str, str]
    """Annotations are added to the pods. Annotations of the operator cannot be replaced."""


class SpecTemplate(TypedDict, total=False):
    """Template is merged over the pods that the operator makes, with the shape of a
    PodTemplateSpec. The container of the trainer is called trainer. With a command of its own it
    runs that program under the launcher instead of the bundled trainer."""

    metadata: SpecTemplateMetadata
    """Metadata holds labels and annotations that are added to the pods."""

    spec: Json
    """Spec is a PodSpec or a part of one. Fields of a PodSpec that are not described here are taken
    over as they are."""


class SpecCheckpoint(TypedDict, total=False):
    """Checkpoint says where the state of the training survives a failure and how often it is saved.
    Without it every attempt starts from the beginning."""

    volumeClaimName: str
    """VolumeClaimName is the name of a PersistentVolumeClaim in the namespace of the job. The job
    writes into a directory of its own there. With more than one node all of them must be able to
    mount it."""

    path: str
    """Path is an absolute directory inside the container that a volume of the template mounts in
    all pods. The job writes into a directory of its own there."""

    uri: str
    """URI is a place in an object store, such as s3://bucket/runs. The job writes below its
    namespace and name there, s3://bucket/runs/team-a/digits. The template must give the container
    credentials, for example by envFrom of a Secret, and the image must have the store's package."""

    everySteps: int
    """EverySteps saves after every so many optimizer steps, beside everySeconds."""

    everyEpochs: int
    """EveryEpochs saves at the end of every so many epochs, beside everySeconds."""

    everySeconds: int
    """EverySeconds saves when so many seconds have passed since the last checkpoint."""

    keep: int
    """Keep is how many of the latest checkpoints stay, beside the best one."""

    keepEveryEpochs: int
    """KeepEveryEpochs saves at the end of every so many epochs and never removes these checkpoints,
    which are called epoch-000010.pt and the like."""

    memory: Literal["Auto", "Never"]
    """Memory says whether the bundled trainer keeps copies of its state in the shared memory of the
    pods, from which a restart goes on at the last finished step. Auto, the default, does, also
    without a checkpoint, and says in the log where /dev/shm or the memory limit is too small; Never
    does not."""


class SpecRunPolicySchedulingPolicy(TypedDict, total=False):
    """SchedulingPolicy is how the pods are placed. A change concerns the pods that are made from
    then on."""

    priorityClassName: str
    """PriorityClassName is the priority class of the pods. It is set here or in template.spec, not
    in both."""

    topologyKey: str
    """TopologyKey is a label of nodes, for example topology.kubernetes.io/zone or that of a rack or
    a switch. The scheduler then prefers nodes with the same value for all pods of the job. It is a
    preference: pods that do not fit there go elsewhere."""

    podPlacement: Literal["Any", "OnePerNode"]
    """PodPlacement says whether pods of the job may share a node. Any, the default, leaves that to
    the scheduler and the devices; OnePerNode demands a node of its own for every pod of the job,
    which suits jobs that use whole nodes, and pods on the network of their nodes. Pods that find no
    such node stay unscheduled, and the condition PodsReady says so."""


class SpecRunPolicy(TypedDict, total=False):
    """RunPolicy is the life cycle of the job. All of it but managedBy can change at any time."""

    suspend: bool
    """Suspend stops the job after a checkpoint and frees its devices, or keeps it from starting.
    False resumes it. While it is true every field of spec but runPolicy.managedBy can change."""

    activeDeadlineSeconds: int
    """ActiveDeadlineSeconds is how long the job may take from status.startTime on, with all its
    waiting and restarts. After that it fails with reason DeadlineExceeded; ranks that run save a
    checkpoint first. Time in suspension does not count, and the time before it neither, because a
    resume sets startTime anew. Without it there is no limit."""

    preRunningDeadlineSeconds: int
    """PreRunningDeadlineSeconds is how long the condition PodsReady may stay untrue, at the start,
    after a resume and after each end of an attempt that had begun. After that the job fails with
    reason PreRunningDeadlineExceeded and the words of the scheduler or the kubelet. Time in
    suspension does not count. Without it there is no limit."""

    ttlSecondsAfterFinished: int
    """TTLSecondsAfterFinished is how long the job stays after status.completionTime. Then it is
    deleted with its pods and their logs; with 0 at once. The checkpoints stay. Without it the job
    stays until somebody deletes it."""

    cleanPodPolicy: Literal["None", "Running", "All"]
    """CleanPodPolicy says which pods are deleted when the job has ended. None, the default, lets
    all pods end by themselves and stay with their logs, and deletes only those that do not end
    within 30 s; Running deletes at once the pods that still run; All deletes every pod."""

    schedulingPolicy: SpecRunPolicySchedulingPolicy
    """SchedulingPolicy is how the pods are placed. A change concerns the pods that are made from
    then on."""

    managedBy: str
    """ManagedBy names the controller that runs the job. Without it, or with
    training.inception.dev/inception-operator, it is this operator; with any other value the
    operator leaves the job alone, for example for kueue.x-k8s.io/multikueue, which runs it in
    another cluster."""


class SpecFailurePolicyRulesOnExitCodes(TypedDict, total=False):
    """OnExitCodes matches the exit code of the rank or container that failed first. Without an exit
    code, for example of a pod that was deleted, it does not match."""

    operator: Required[Literal["In", "NotIn"]]
    """Operator is In for an exit code that is one of the values, NotIn for one that is none of
    them."""

    values: Required[list[int]]
    """Values are exit codes from 1 to 255."""


class SpecFailurePolicyRulesOnPodConditions(TypedDict, total=False):
    """PodCondition is the type and status of a condition of a pod."""

    type: Required[str]
    """Type of the condition."""

    status: Literal["True", "False", "Unknown"]
    """Status of the condition, one of True, False and Unknown."""


class SpecFailurePolicyRules(TypedDict, total=False):
    """Rule is an action and what it is for. It matches when all of onExitCodes, onReasons,
    onPodConditions and onMessagePatterns that it has match."""

    name: Required[str]
    """Name of the rule, which conditions and events give when the rule has decided."""

    action: Required[Literal["Fail", "Restart", "RestartIgnoringLimit"]]
    """Action is what to do. Fail ends the job, Restart begins the next attempt and counts towards
    maxRestarts, RestartIgnoringLimit begins it without counting."""

    onExitCodes: SpecFailurePolicyRulesOnExitCodes
    """OnExitCodes matches the exit code of the rank or container that failed first. Without an exit
    code, for example of a pod that was deleted, it does not match."""

    onReasons: list[
        Literal[
            "Error",
            "Signal",
            "OOMKilled",
            "PeerLost",
            "UsageError",
            "DataError",
            "InputMissing",
            "ConfigError",
            "Hang",
            "Stopped",
            "CannotRun",
            "NonFinite",
            "DeviceOutOfMemory",
            "ContractMismatch",
            "PodDeleted",
            "PodFailed",
            "Evicted",
            "LimitExceeded",
            "Disrupted",
            "NodeLost",
            "UnexpectedAdmissionError",
            "NotResponding",
            "LauncherUnreachable",
            "DeviceUnhealthy",
        ]
    ]
    """OnReasons matches when the reason of the root cause is one of these."""

    onPodConditions: list[SpecFailurePolicyRulesOnPodConditions]
    """OnPodConditions matches when the pod that failed first has one of these conditions, for
    example DisruptionTarget or one that a program of the cluster has set."""

    onMessagePatterns: list[str]
    """OnMessagePatterns matches when status.rootCause.message has a part that fits one of these
    regular expressions, for example `CUDA error: (un)?correctable ECC`. Their syntax is that of
    RE2, without look-around and back references."""


class SpecFailurePolicy(TypedDict, total=False):
    """FailurePolicy says when an attempt has failed and what to do then. It can change at any time,
    except for progressDeadlineSeconds."""

    maxRestarts: int
    """MaxRestarts is how many restarts the job may use up before it fails, unless it gets on
    between them: see resetAfterSeconds. Restarts that the infrastructure caused do not count."""

    resetAfterSeconds: int
    """ResetAfterSeconds is after how many seconds of progress no restart counts towards maxRestarts
    any more. Progress is what attempts train beyond the furthest step before them, added up from
    the latest restart that counts; of a program that never tells a step, an attempt that lasts is
    progress. So a failure a day never ends a job, and a loop of crashes ends it after maxRestarts.
    With 315360000, ten years, restarts count over the whole life of the job."""

    progressDeadlineSeconds: int
    """ProgressDeadlineSeconds ends an attempt as a Hang when a rank has made no step for so long;
    the stacks of all ranks go to the pods' logs first. The start of an attempt, an evaluation and a
    checkpoint may take ten times as long. The default is learned from the steps of the job, ten
    times the slowest of the last ones and at least 60; a start may then take 1800 at least, an
    evaluation and a checkpoint 600. A program of your own that does not say which of its steps are
    long may be silent for 1800 at least, and one that gives no sign of life is not watched. 0 ends
    nothing, as for a session with a debugger."""

    nodeLostSeconds: int
    """NodeLostSeconds is how long a pod may be not ready and silent on a node that is not ready
    before it counts as lost and is replaced. Without it a silent pod is replaced after half a
    minute, and one that is being deleted is waited for until its grace period is over. A pod that
    has not started there counts as lost too. An operator without the right to get nodes acts as
    without it, and condition Accepted says so."""

    nodeLostPolicy: Literal["KeepPods", "ForceDeletePods"]
    """NodeLostPolicy is what becomes of pods that stay terminating on a lost node. KeepPods, the
    default, leaves them until the node is back or removed. ForceDeletePods deletes them by force
    after nodeLostSeconds, so that their volumes and quota are free; their ranks may still run, but
    checkpoints are fenced against them."""

    stragglerPolicy: Literal["None", "Report", "Replace"]
    """StragglerPolicy is what to do about a rank that all others wait for in every step. Report,
    the default, names it in status.straggler and with an event, when it has needed half as long
    again as the median of the ranks, until its gradients are ready, for about 15 seconds. None asks
    no pod for it and says nothing. Replace also moves its slot to another node once it has been so
    slow for five minutes: to a spare that is ready there, or to a new pod that is made there first,
    at a step boundary, which is no restart and loses no step. It waits half an hour between two of
    them and makes three a day at most. A job without spec.checkpoint, or without room on another
    node, stays, and condition PodsReady says why."""

    rules: list[SpecFailurePolicyRules]
    """Rules are tried in their order against the root cause of an attempt that failed, and the
    first that matches decides. What no rule matches is decided by the operator's own table of exit
    codes and reasons."""


class Spec(TypedDict, total=False):
    """Spec is the job that is wanted. While the job is not suspended, only runPolicy, failurePolicy
    and elasticPolicy can change, and with an elasticPolicy numNodes; runPolicy.managedBy never
    can."""

    image: str
    """Image of the container trainer. Without it the operator's default is used, the image
    inception-trainer of the operator's own version. For a program of your own it needs Python 3.10
    and torch 2.1 or newer."""

    training: SpecTraining
    """Training is what the bundled trainer does: data, network, length and method. Decimal numbers
    are quoted strings. The trainer reads the same keys from its own YAML file outside Kubernetes.
    It is required, unless the container trainer of the template brings a command of its own."""

    accelerator: SpecAccelerator
    """Accelerator says which devices a node gets. The default is the CPU."""

    numNodes: int
    """NumNodes is the number of pods that train together, each on one node's devices. With an
    elasticPolicy it is the wanted number and can change while the job runs, also with kubectl
    scale."""

    elasticPolicy: SpecElasticPolicy
    """ElasticPolicy lets the job go on with fewer nodes than wanted, follow changes of numNodes
    while it runs and keep hot spares. Each change of size is a new attempt that goes on from a
    checkpoint and counts as no restart. The global batch and the learning rate stay the same at
    every size. Its fields can change at any time."""

    numProcPerNode: int | str
    """NumProcPerNode is the number of ranks on each node, from 1 to 64, or auto for one rank on
    every device, which is one rank for profile cpu."""

    template: SpecTemplate
    """Template is merged over the pods that the operator makes, with the shape of a
    PodTemplateSpec. The container of the trainer is called trainer. With a command of its own it
    runs that program under the launcher instead of the bundled trainer."""

    checkpoint: SpecCheckpoint
    """Checkpoint says where the state of the training survives a failure and how often it is saved.
    Without it every attempt starts from the beginning."""

    runPolicy: SpecRunPolicy
    """RunPolicy is the life cycle of the job. All of it but managedBy can change at any time."""

    successPolicy: Literal["All", "Chief"]
    """SuccessPolicy says whose success is the success of the job. All, the default, waits for all
    nodes. With Chief the job has succeeded when the node of rank 0 has; the other pods are then
    ended."""

    failurePolicy: SpecFailurePolicy
    """FailurePolicy says when an attempt has failed and what to do then. It can change at any time,
    except for progressDeadlineSeconds."""


class StatusConditions(TypedDict, total=False):
    """Condition is one aspect of the state of the job."""

    type: Required[str]
    """Type of the condition in CamelCase."""

    status: Required[Literal["True", "False", "Unknown"]]
    """Status of the condition, one of True, False and Unknown."""

    observedGeneration: int
    """ObservedGeneration is the generation of the spec that the condition was set for."""

    lastTransitionTime: Required[str]
    """LastTransitionTime is when the status of the condition last changed."""

    reason: Required[str]
    """Reason for the last transition, a constant in CamelCase."""

    message: Required[str]
    """Message for humans about the transition, which may be empty."""


class StatusFurthest(TypedDict, total=False):
    """Furthest is the furthest step that an attempt which failed is known to have reached, and the
    last attempt that made progress."""

    attempt: int
    """Attempt is the last attempt that got beyond every step before it."""

    step: int
    """Step is the furthest step."""


class StatusAvoidedNodes(TypedDict, total=False):
    """AvoidedNode is one node with the time until which it is avoided."""

    name: Required[str]
    """Name of the node."""

    reason: Required[str]
    """Reason is the root cause that it is avoided for, for example DeviceUnhealthy."""

    expirationTime: Required[str]
    """ExpirationTime is when new pods may prefer the node again."""


class StatusNodes(TypedDict, total=False):
    """Nodes counts the pods of the job."""

    desired: int
    """Desired is how many nodes the job wants."""

    ready: int
    """Ready is how many nodes have a launcher that is ready."""

    summary: str
    """Summary is both numbers for humans, for example 2/2."""

    members: str
    """Members are the slots that train in the latest attempt that has started, in the order of
    their node ranks, for example 0-2,4. Only jobs with an elasticPolicy have it."""

    desiredAtStart: int
    """DesiredAtStart is how many nodes the job wanted when that attempt started. Only jobs with an
    elasticPolicy have it."""

    spareReady: int
    """SpareReady is how many more pods have a launcher that is ready and no rank. Only jobs with an
    elasticPolicy have it."""


class StatusTrainerStatus(TypedDict, total=False):
    """TrainerStatus is the progress of the training as the trainer last reported it."""

    progressPercentage: int
    """ProgressPercentage is the share of the steps that are done, from 0 to 100."""

    estimatedRemainingSeconds: int
    """EstimatedRemainingSeconds is how long the rest takes at the present speed."""

    epoch: int
    """Epoch is the number of the present epoch."""

    step: int
    """Step is how many optimizer steps are done."""

    samplesPerSecond: str
    """SamplesPerSecond is the speed over all ranks, a decimal."""

    accuracyTop1: str
    """AccuracyTop1 is the share of validation samples whose most likely class is right, a decimal
    from 0 to 1."""

    accuracyTop5: str
    """AccuracyTop5 is the share of validation samples whose class is among the five most likely, a
    decimal from 0 to 1."""

    loss: str
    """Loss is the latest training loss, a decimal."""

    samplesSeen: int
    """SamplesSeen is how many training samples the job has consumed over all epochs and
    attempts."""

    repeatedSteps: int
    """RepeatedSteps is how many optimizer steps restarts had to do again, over all attempts and as
    far as the ranks know. 0 where a copy in memory was of the last step."""

    lastCheckpointTime: str
    """LastCheckpointTime is when the latest checkpoint was complete."""

    lastUpdatedTime: str
    """LastUpdatedTime is when these figures were last read from the trainer."""


class StatusGoodputSeconds(TypedDict, total=False):
    """Seconds says for each cause how many seconds went to it. Together they are all the time."""

    productive: int
    """Productive is for steps that had not been done before."""

    repeatedSteps: int
    """RepeatedSteps is for steps that had to be done again."""

    data: int
    """Data is for waits of rank 0 for its next batch, as the bundled trainer tells them."""

    checkpoint: int
    """Checkpoint is for standing still while a checkpoint is written, as the bundled trainer tells
    it."""

    queue: int
    """Queue is for waits until the queue admits the job, or until pods may be made at all: quota,
    admission, pod policy."""

    pods: int
    """Pods is for waits until the pods are scheduled, pulled and started."""

    firstStep: int
    """FirstStep is for the time from ready pods to the first step of a job that begins."""

    recovery: int
    """Recovery is for the time from the end of an attempt to the first step of the next one."""

    backOff: int
    """BackOff is for pauses before the next attempt of a job that fails again and again."""

    suspended: int
    """Suspended is for the time in which the job was suspended on request."""


class StatusGoodput(TypedDict, total=False):
    """Goodput is where the time of the job has gone since it was admitted, up to lastUpdatedTime.
    It is counted on with every write of the status, and no more once the job is over.
    docs/goodput.md defines the causes."""

    ratio: str
    """Ratio is the productive share of all time in which the job was not suspended on request, a
    decimal from 0 to 1."""

    seconds: StatusGoodputSeconds
    """Seconds says for each cause how many seconds went to it. Together they are all the time."""

    cause: str
    """Cause is the one of them that grows now. A job that is over has none."""

    causeStartTime: str
    """CauseStartTime is since when it has been this one."""

    lastUpdatedTime: str
    """LastUpdatedTime is up to when the time has been counted."""

    furthestStep: int
    """FurthestStep is the furthest step that the job is known to have done."""

    dataSeconds: int
    """DataSeconds is how many of the data seconds are of the present attempt."""

    checkpointSeconds: int
    """CheckpointSeconds is how many of the checkpoint seconds are of the present attempt."""


class StatusStraggler(TypedDict, total=False):
    """Straggler is the rank that all others wait for in every step, while there is one and the
    ranks run. docs/stragglers.md says how it is found."""

    rank: int
    """Rank is its global number."""

    pod: str
    """Pod is the name of the pod that it runs in."""

    node: str
    """Node is the name of the Kubernetes node that the pod runs on."""

    ratio: str
    """Ratio is how many times as long as the median of the ranks it takes from the beginning of a
    step until its gradients are ready, a decimal."""

    startTime: str
    """StartTime is since when it has been so slow."""


class StatusReplacedStragglers(TypedDict, total=False):
    """ReplacedStraggler is one of them."""

    rank: int
    """Rank is its global number in the attempt that ended with the move."""

    pod: str
    """Pod is the name of the pod that it ran in."""

    node: Required[str]
    """Node is the name of the Kubernetes node that it has left."""

    time: Required[str]
    """Time is when the attempt ended for it."""


class StatusRootCause(TypedDict, total=False):
    """RootCause says why the latest attempt that failed did so, naming the first failure."""

    attempt: int
    """Attempt is the number of the attempt that failed."""

    pod: str
    """Pod is the name of the pod that failed first."""

    node: str
    """Node is the name of the Kubernetes node that the pod ran on."""

    rank: int
    """Rank is the global rank that failed first, if a rank did."""

    step: int
    """Step is the last one that the rank is known to have made, or the one at which the loss was no
    finite number."""

    exitCode: int
    """ExitCode is the exit code of the launcher's contract."""

    reason: str
    """Reason is a constant in CamelCase, for example OOMKilled or PodDeleted."""

    message: str
    """Message begins with the head of the exception or with what the cluster said. Below it may
    stand the last lines that the rank wrote to stderr, or the stack of a rank that hangs."""

    time: str
    """Time is when it failed."""


class Status(TypedDict, total=False):
    """Status is what the operator has seen. It is made from the pods and can be lost, but for the
    counters."""

    observedGeneration: int
    """ObservedGeneration is the generation of the spec that this status belongs to."""

    conditions: list[StatusConditions]
    """Conditions are the states of the job for machines. Those that end a job never flip back."""

    state: str
    """State is one word for humans that says what the job is doing. Machines read the
    conditions."""

    startTime: str
    """StartTime is when the operator began to run the job, or went on with it after the latest
    suspension."""

    completionTime: str
    """CompletionTime is when the job succeeded or failed."""

    attempt: int
    """Attempt is the number of the latest attempt, counted from 1. It also grows when a job resumes
    or changes its size."""

    restarts: int
    """Restarts is how many times the job was restarted after a failure."""

    restartsCountTowardsMax: int
    """RestartsCountTowardsMax is how many of the restarts count towards failurePolicy.maxRestarts.
    The others were caused by the infrastructure, are excused by a rule, or the job has got on
    since: it is 0 again after failurePolicy.resetAfterSeconds of progress."""

    progressSeconds: int
    """ProgressSeconds is for how long the attempts that have ended since the latest restart that
    counts have trained beyond the furthest step before them. At failurePolicy.resetAfterSeconds it
    begins anew."""

    nonFiniteStep: int
    """NonFiniteStep is the step at which the loss or a weight was last no finite number. The second
    time at the same step ends the job."""

    failuresInARow: int
    """FailuresInARow is how many attempts failed one after the other before their first step. From
    the third on the job waits before its next attempt, twice as long each time and at most a
    minute."""

    furthest: StatusFurthest
    """Furthest is the furthest step that an attempt which failed is known to have reached, and the
    last attempt that made progress."""

    nextAttemptTime: str
    """NextAttemptTime is when the next attempt may begin, while the job waits for it."""

    nextMoveTime: str
    """NextMoveTime is when the next replacement is made for a pod whose node is about to go. It is
    set when none became ready in time; until then the job stays where it is."""

    avoidedNodes: list[StatusAvoidedNodes]
    """AvoidedNodes are nodes on which a device broke under the job. New pods prefer other nodes
    until the entry expires; where there are none they go there all the same."""

    nodes: StatusNodes
    """Nodes counts the pods of the job."""

    selector: str
    """Selector is the label selector of the pods of the job, for autoscalers."""

    accelerator: str
    """Accelerator is what each node gets for humans, for example cpu or cambricon.com/mlu x2."""

    model: str
    """Model is the network that is trained, for humans."""

    checkpointPath: str
    """CheckpointPath is where the job keeps its checkpoints all its life, a directory inside the
    container or a URI. It ends with the job's name, in a store with namespace and name."""

    trainerStatus: StatusTrainerStatus
    """TrainerStatus is the progress of the training as the trainer last reported it."""

    goodput: StatusGoodput
    """Goodput is where the time of the job has gone since it was admitted, up to lastUpdatedTime.
    It is counted on with every write of the status, and no more once the job is over.
    docs/goodput.md defines the causes."""

    straggler: StatusStraggler
    """Straggler is the rank that all others wait for in every step, while there is one and the
    ranks run. docs/stragglers.md says how it is found."""

    replacedStragglers: list[StatusReplacedStragglers]
    """ReplacedStragglers are the stragglers whose slots have moved to other nodes, the latest 16 at
    most. New pods prefer other nodes than theirs for a day; where there are none they go there all
    the same."""

    rootCause: StatusRootCause
    """RootCause says why the latest attempt that failed did so, naming the first failure."""
