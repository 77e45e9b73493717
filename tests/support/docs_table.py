"""The stories in which the commands of the documents run; tests/support/docs_excuses.py has the
ones that nobody runs.

A story is what a reader does, in order, in a folder that looks like a checkout and a namespace of
its own (``$NAMESPACE``). Its scripts stand for what a reader has already, and for the nodes: pods
run on fake ones, whose annotations say how they end (localcluster.kwok).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

RELEASE: Final = "inception-operator charts/inception-operator -n inception-system"
PINNED: Final = "--set image.repository=registry/you/inception-operator"
IMAGES: Final = f"{PINNED} --set trainerImage=registry/you/inception-trainer:0.1.0"


@dataclass(frozen=True)
class Run:
    """A command as a document has it, and what is put in the place of its words."""

    command: str
    words: Mapping[str, str] = field(default_factory=dict)
    """Placeholders, and places on the reader's machine, by what they stand for here."""
    until: str = ""
    """Output after which a command that goes on for ever is stopped."""
    says: tuple[str, ...] = ()


@dataclass(frozen=True)
class Story:
    """Commands in the order in which a reader types them; a text between them is a script."""

    name: str
    steps: tuple[Run | str, ...]
    nightly: bool = True


def claim(name: str, namespace: str = "$NAMESPACE") -> str:
    """A claim and the volume that it is bound to; there is no provisioner beside fake nodes."""
    return f"""
kubectl apply -f - <<EOF
apiVersion: v1
kind: PersistentVolume
metadata: {{name: "{namespace}-{name}"}}
spec:
  accessModes: [ReadWriteOnce, ReadWriteMany]
  capacity: {{storage: 9Gi}}
  claimRef: {{namespace: "{namespace}", name: {name}}}
  hostPath: {{path: /nowhere}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}, namespace: "{namespace}"}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 2Gi}}}}
EOF
"""


def kinds(*names: str) -> str:
    """Kinds of other projects, ``PLURAL.GROUP/VERSION/KIND``, of which the cluster knows that they
    are there.
    """
    return "".join(_kind(*name.split("/")) for name in names)


def _kind(name: str, version: str, kind: str) -> str:
    plural, group = name.split(".", 1)
    return f"""
kubectl apply -f - <<EOF
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {name}}}
spec:
  group: {group}
  names: {{plural: {plural}, singular: {kind.lower()}, kind: {kind}}}
  scope: Namespaced
  versions:
    - name: {version}
      served: true
      storage: true
      schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
EOF
until kubectl get {name} >/dev/null 2>&1; do sleep 0.2; done
"""


def ends(job: str) -> str:
    """The pods of a job succeed, on fake nodes."""
    selector = f"training.inception.dev/job={job}"
    return f"kubectl annotate pods -l {selector} kwok.localcluster/succeed-after=1ms"


RUNNING: Final = "kubectl inception wait digits --for running --timeout 60s"
RUN_DIGITS: Final = (
    "kubectl inception run digits --recipe bninception-digits --accelerator cpu --nodes 2 "
    "--checkpoint my-claim"
)
FIRST_NODE: Final = "$(kubectl get nodes -o jsonpath={.items[0].metadata.name})"
PLACES: Final = {"NAMESPACE": "$NAMESPACE", "NAME": "bninception-digits"}
DEVICES: Final = tuple(
    f"kubectl get nodes -o custom-columns='NODE:.metadata.name,DEVICES:.status.allocatable.{name}'"
    for name in (r"nvidia\.com/gpu", r"huawei\.com/Ascend910")
)
CLUSTER: Final = (
    Story(
        "the first page, and the runbooks",
        (
            claim("bninception-digits"),
            "kubectl apply -f README-1.yaml",
            "kubectl inception wait bninception-digits --for running --timeout 60s",
            Run("kubectl get itrain", says=("bninception-digits", "2/2", "cpu")),
            Run("kubectl explain itrain.spec --recursive", says=("numNodes",)),
            Run("kubectl describe itrain NAME -n NAMESPACE", PLACES, says=("PodsReady",)),
            Run(
                "kubectl apply -f manifests/samples/<sample>.yaml",
                {"<sample>": "bninception-amp-100e-8mlu"},
            ),
            Run("kubectl describe pod", says=("bninception-digits-0-1",)),
            Run("kubectl describe pvc CLAIM -n NAMESPACE", PLACES | {"CLAIM": ""}),
            Run("kubectl cordon NODE", {"NODE": FIRST_NODE}),
            f"kubectl uncordon {FIRST_NODE}",
        ),
        nightly=False,
    ),
    Story(
        "bringing jobs of other operators here",
        (
            kinds("pytorchjobs.kubeflow.org/v1/PyTorchJob"),
            "cp $MANIFESTS/pytorchjob-cpu-pair.yaml job.yaml; cp job.yaml pytorchjob.yaml",
            "sed 's/digits-gloo/mine/; /namespace:/d' job.yaml | kubectl apply -f -",
            Run("kubectl inception convert job.yaml > training.yaml"),
            "kubectl apply --dry-run=server -f training.yaml -n $NAMESPACE || "
            "sed '/namespace:/d' training.yaml | kubectl apply --dry-run=server -f -",
            Run(
                "kubectl get pytorchjob mine -o yaml | kubectl inception convert - -o json",
                says=('"InceptionTraining"', '"mine"'),
            ),
            Run("kubectl inception convert pytorchjob.yaml", says=("kind: InceptionTraining",)),
            "kubectl delete crd pytorchjobs.kubeflow.org",
        ),
    ),
    Story(
        "kubectl inception: jobs are started and looked at",
        (
            claim("my-claim") + claim("flowers"),
            Run("source <(inceptionctl completion bash)"),
            Run("kubectl inception doctor", says=("ok       operator",)),
            Run("kubectl inception recipes", says=("bninception-digits",)),
            Run(RUN_DIGITS),
            Run(
                "kubectl inception run flowers --recipe inceptionv3-imagenet --accelerator nvidia "
                "--devices 8 --nodes 2 --mount flowers:/data:ro --set data.path=/data "
                "--set epochs=20 --checkpoint s3://bucket/runs"
            ),
            Run(
                "kubectl inception run mine --image registry/you/mine --nodes 2 "
                "-- torchrun train.py --epochs 3"
            ),
            Run("kubectl inception explain optimizer.momentum", says=("<string>",)),
            "kubectl inception wait flowers --for running --timeout 60s",
            RUNNING,
            Run("kubectl inception list", says=("digits", "flowers", "mine")),
            Run("kubectl inception describe digits", says=("digits in $NAMESPACE: Running",)),
            Run("kubectl inception top", until="digits"),
            Run("kubectl inception checkpoints digits"),
            Run(
                "kubectl inception compare digits digits-sgd",
                {"digits-sgd": "flowers"},
                says=("flowers",),
            ),
            Run("kubectl inception debug digits", says=(".tar.gz",)),
            Run("kubectl inception report digits", says=("$NAMESPACE-digits.html",)),
        ),
    ),
    Story(
        "kubectl inception: a job is steered",
        (
            claim("my-claim"),
            RUN_DIGITS,
            RUNNING,
            Run("kubectl inception restart digits"),
            "kubectl wait itrain/digits --for=jsonpath={.status.attempt}=2 --timeout=60s",
            RUNNING,
            Run("kubectl inception suspend digits"),
            "kubectl inception wait digits --for suspended --timeout 60s",
            Run("kubectl inception scale digits --nodes 4"),
            "kubectl inception resume digits",
            RUNNING,
            Run("kubectl inception cancel digits"),
            "! kubectl inception wait digits --timeout 60s",
            Run("kubectl inception delete digits"),
            "kubectl wait itrain/digits --for=delete --timeout=60s",
        ),
    ),
    Story(
        "kubectl inception: jobs come to their ends",
        (
            claim("my-claim"),
            RUN_DIGITS,
            RUNNING,
            ends("digits"),
            Run("kubectl inception watch digits", says=("digits: Succeeded",)),
            # Nobody writes logs on fake nodes; it ends with the job.
            Run("kubectl inception logs digits --follow"),
            Run(
                "kubectl inception run nightly --recipe bninception-digits --accelerator cpu "
                "--checkpoint my-claim"
            ),
            "kubectl inception wait nightly --for running --timeout 60s",
            ends("nightly"),
            Run(
                'kubectl inception wait nightly --timeout 2h || echo "it ended with $?"',
                says=("nightly: Succeeded",),
            ),
        ),
    ),
    Story(
        "a report, a size, another number of epochs",
        (
            claim("my-claim"),
            f"{RUN_DIGITS} --set spec.elasticPolicy.maxNodes=8",
            RUNNING,
            Run("kubectl inception report digits -n team-a", {"team-a": "$NAMESPACE"}),
            Run(
                "kubectl inception report digits -n team-a --prometheus http://prometheus:9090",
                {"team-a": "$NAMESPACE", "http://prometheus:9090": "$PROMETHEUS"},
            ),
            Run("kubectl scale itrain/NAME --replicas=6", {"NAME": "digits"}),
            Run("kubectl scale itrain/NAME --replicas=2", {"NAME": "digits"}),
            Run(
                "kubectl patch itrain digits --type merge "
                """-p '{"spec":{"runPolicy":{"suspend":true}}}'"""
            ),
            Run(
                "kubectl patch itrain digits --type merge "
                """-p '{"spec":{"training":{"epochs":20},"runPolicy":{"suspend":false}}}'"""
            ),
        ),
    ),
    Story(
        "what a describe shows",
        (
            "sed 's/name: .*/name: bninception/' README-1.yaml | kubectl apply -f -",
            Run("kubectl describe itrain bninception"),
        ),
        nightly=False,
    ),
    Story(
        "images of one's own, several nodes, several teams",
        (
            claim("pets") + claim("runs") + claim("imagenet"),
            *(Run(command, says=("NODE",)) for command in DEVICES),
            Run(
                'kubectl get nodes -o jsonpath=\'{range .items[*]}{.metadata.name}{" "}'
                '{.status.allocatable}{"\\n"}{end}\'',
                says=("nvidia.com/gpu",),
            ),
            "sed '1,/^---$/d' own-data-2.yaml | kubectl apply -f -",
            Run("kubectl delete pod loader"),
            Run(
                "kubectl inception run pets --recipe resnet50-imagenet --accelerator nvidia "
                "--devices 1 --mount pets:/data:ro --set data.path=/data "
                "--set data.heldOutShare=0.1 --set model.weights=/data/resnet50.safetensors "
                "--set model.classifier=New --set batch.global=64 "
                "--set optimizer.learningRate=0.01 --set epochs=10 "
                "--set schedule.warmupEpochs=1 --checkpoint runs"
            ),
            "kubectl inception wait pets --for running --timeout 60s",
            Run("kubectl inception describe pets", says=("pets in $NAMESPACE: Running",)),
            Run("kubectl inception checkpoints pets"),
            ends("pets"),
            Run("kubectl inception watch pets", says=("pets: Succeeded",)),
            "kubectl apply -f multi-node-1.yaml",
            Run("kubectl inception describe two-nodes", says=("two-nodes in $NAMESPACE",)),
            "sed 's/, namespace: team-a//' multi-tenancy-1.yaml | kubectl apply -f -",
            Run(
                "kubectl create rolebinding team-a-edit --clusterrole=edit --group=team-a "
                "-n team-a",
                {"-n team-a": "-n $NAMESPACE"},
            ),
            Run(
                "kubectl label namespace team-a pod-security.kubernetes.io/enforce=restricted",
                {"namespace team-a": "namespace $NAMESPACE"},
            ),
            Run("kubectl apply -f manifests/samples/policies/validating-admission-policy.yaml"),
            "kubectl delete -f manifests/samples/policies/validating-admission-policy.yaml",
        ),
    ),
    Story(
        "an operator by hand",
        (
            Run(
                "inception-operator run … --leave-on default,-cordon,condition=GpuXid",
                {
                    "…": "--trainer-image t:1 --http-port 0 --kubeconfig $KUBECONFIG "
                    "--namespaces $NAMESPACE --no-leader-election"
                },
                until="working",
            ),
        ),
    ),
)
"""Beside an operator that works."""

INSTALLED: Final = "kubectl -n inception-system rollout status deployment/inception-operator"
SERVED: Final = "until kubectl get itrain -A >/dev/null 2>&1; do sleep 0.2; done"
INSTALL: Final = (
    Story(
        "install, upgrade, watch, remove",
        (
            "kubectl delete crd inceptiontrainings.training.inception.dev --ignore-not-found",
            Run(
                "helm install inception-operator charts/inception-operator "
                "--namespace inception-system --create-namespace"
            ),
            Run(INSTALLED),
            Run("kubectl get pods -n inception-system", says=("inception-operator-",)),
            Run(
                "kubectl get deployment -n inception-system -L training.inception.dev/shard",
                says=("SHARD",),
            ),
            Run("kubectl get lease -n inception-system -o yaml", says=("kind: Lease",)),
            f"{SERVED}; kubectl delete itrain --all -A",
            "helm uninstall inception-operator -n inception-system",
            "kubectl delete crd inceptiontrainings.training.inception.dev",
            Run(f"helm install {RELEASE} --create-namespace {IMAGES}"),
            f"{INSTALLED}; {SERVED}",
            # What the release says of its first job, as it is copied from the terminal.
            "helm get notes inception-operator -n inception-system | "
            "sed -n '/^kubectl apply/,/^JOB/p' > notes.sh",
            "bash -eu notes.sh; kubectl get inceptiontraining digits",
            "(kubectl wait --for=create pod/inception-operator-test -n inception-system "
            "--timeout=60s && kubectl annotate pod inception-operator-test -n inception-system "
            "kwok.localcluster/succeed-after=1ms) >/dev/null &",
            Run("helm test inception-operator -n inception-system", says=("Succeeded",)),
            Run("helm upgrade … --set podPolicy=baseline", {"…": RELEASE}),
            Run(
                "helm upgrade … --set podUser=none --set podSecurityContext.runAsUser=null "
                "--set podSecurityContext.runAsGroup=null --set podSecurityContext.fsGroup=null",
                {"…": RELEASE},
            ),
            Run(
                "helm upgrade … --set 'leaveOn={default,-cordon,condition=GpuXid}'",
                {"…": RELEASE},
            ),
            kinds(
                "podmonitors.monitoring.coreos.com/v1/PodMonitor",
                "servicemonitors.monitoring.coreos.com/v1/ServiceMonitor",
                "prometheusrules.monitoring.coreos.com/v1/PrometheusRule",
                "certificates.cert-manager.io/v1/Certificate",
            ),
            Run(
                "helm upgrade … --set metrics.rules.enabled=true "
                "--set metrics.operator.podMonitor.enabled=true "
                "--set metrics.trainer.podMonitor.enabled=true "
                "--set metrics.rules.labels.release=kube-prometheus-stack",
                {"…": RELEASE},
            ),
            Run(
                "helm upgrade … --set metrics.operator.secure.enabled=true "
                "--set metrics.operator.serviceMonitor.enabled=true "
                "--set metrics.operator.secure.certManager.enabled=true "
                "--set metrics.operator.secure.certManager.issuerRef.name=ISSUER "
                "--set metrics.operator.secure.certManager.issuerRef.kind=ClusterIssuer",
                {"…": RELEASE, "ISSUER": "issuer"},
            ),
            "kubectl get clusterrole inception-operator-metrics-reader",
            Run(
                "kubectl create clusterrolebinding prometheus-reads-inception "
                "--clusterrole=inception-operator-metrics-reader "
                "--serviceaccount=monitoring:prometheus"
            ),
            "kubectl delete clusterrolebinding prometheus-reads-inception",
            Run("helm upgrade … --set crds.enabled=true", {"…": RELEASE}),
            Run("helm rollback inception-operator -n inception-system"),
            Run("kubectl delete lease inception-operator -n inception-system"),
            Run("helm uninstall inception-operator -n inception-system"),
            Run("kubectl apply --server-side --force-conflicts -f manifests/install.yaml"),
            Run(f"helm install {RELEASE} --take-ownership --force-conflicts"),
            "helm uninstall inception-operator -n inception-system",
            "kubectl create namespace team-a; kubectl create namespace team-b",
            Run("helm install … --set 'watchNamespaces={team-a,team-b}'", {"…": RELEASE}),
            "kubectl get role -n team-a -o name | grep inception-operator",
            "helm uninstall inception-operator -n inception-system",
            "kubectl delete namespace inception-system team-a team-b --timeout=60s",
            # It was Helm's; who moves from Helm to kubectl forces conflicts, as above.
            "kubectl delete crd inceptiontrainings.training.inception.dev",
            "cp manifests/install.yaml .",
            Run("kubectl apply --server-side -f manifests/install.yaml"),
            Run("kubectl apply --server-side -f install.yaml"),
            Run("kubectl apply --server-side -f manifests/crd.yaml"),
            SERVED,
            Run("kubectl apply -f manifests/samples/bninception-digits.yaml"),
            Run("kubectl get itrain -w", until="bninception-digits"),
            Run("kubectl describe itrain bninception-digits", says=("bninception-digits",)),
            Run("kubectl apply --server-side -k manifests/kustomize/overlays/cluster-wide"),
            "kubectl delete -f manifests/install.yaml --ignore-not-found --timeout=60s",
            "kubectl apply --server-side -f manifests/crd.yaml",
            SERVED,
            Run("kubectl delete itrain --all -A"),
            Run("kubectl delete crd inceptiontrainings.training.inception.dev"),
            "kubectl delete crd podmonitors.monitoring.coreos.com "
            "servicemonitors.monitoring.coreos.com prometheusrules.monitoring.coreos.com "
            "certificates.cert-manager.io",
        ),
    ),
)
"""Without one, from an empty cluster to an empty cluster."""

# Steps enough to see that it trains, where the document has ten epochs.
SHORT_JOB: Final = (
    "sed 's:/data/runs:runs:' trainer-1.yaml > job.yaml; echo 'maxSteps: 2' >> job.yaml"
)
ALONE: Final = (
    Story(
        "the trainer answers questions",
        (
            "cp trainer-1.yaml job.yaml; mkdir runs",
            "for run in one two; do cp -r $RECORDED/output runs/$run; done",
            Run("inception-trainer recipes", says=("bninception-digits",)),
            Run("inception-trainer explain", says=("optimizer.momentum",)),
            Run("inception-trainer explain optimizer", says=("momentum",)),
            Run("inception-trainer explain optimizer.momentum", says=("momentum",)),
            Run("inception-trainer compare runs/one runs/two"),
            "mkdir -p out; cp -r $RECORDED out/demo",
            Run("python -m inception_operator.report --files out/demo", says=(".html",)),
        ),
        nightly=False,
    ),
    Story(
        "data is looked at",
        (
            SHORT_JOB,
            Run("inception-trainer data check job.yaml", says=("images",)),
            "$PICTURES data/pets photos",
            Run(
                "inception-trainer data check --set data.kind=ImageFolder "
                "--set data.path=/data/pets --json",
                {"/data/": "data/"},
            ),
        ),
    ),
    Story(
        "images of one's own",
        (
            "$PICTURES data/pets photos",
            "sed 's:/data/:data/:g' own-data-1.yaml > job.yaml; echo 'maxSteps: 2' >> job.yaml",
            Run(
                "inception-trainer data check --set data.kind=ImageFolder "
                "--set data.path=/data/pets --set data.heldOutShare=0.1",
                {"/data/": "data/"},
                says=("2 classes",),
            ),
            "inception-trainer train job.yaml; cp data/runs/pets/checkpoints/best.pt .",
            Run(
                "inception-trainer infer --set model.weights=best.pt --set inference.path=photos "
                "--set output.path=out"
            ),
        ),
    ),
    Story(
        "a network is trained and used",
        (
            f"{SHORT_JOB}; $PICTURES data/pets photos",
            Run("inception-trainer train job.yaml"),
            "cp runs/digits/checkpoints/final.safetensors .",
            Run("inception-trainer evaluate job.yaml --set model.weights=final.safetensors"),
            Run(
                "inception-trainer infer --set model.weights=final.safetensors "
                "--set inference.path=photos --set output.path=out"
            ),
            Run(
                "inception-trainer export --set model.weights=final.safetensors "
                "--set output.path=out"
            ),
            "for step in 1 2; do cp runs/digits/checkpoints/final.pt step-$step.pt; done",
            Run("inception-trainer average step-1.pt step-2.pt --output mean.pt"),
        ),
    ),
    Story(
        "a network is trained otherwise",
        (
            SHORT_JOB,
            Run("torchrun --nproc-per-node 4 -m inception_trainer train job.yaml"),
            "rm -rf runs",
            Run(
                "inception-trainer train job.yaml --set optimizer.learningRate=0.05 --set epochs=3"
            ),
            "rm -rf runs",
            Run("inception-trainer train job.yaml --set profiler.steps=3"),
            Run(
                "python3 -m inception_trainer train --set data.kind=Synthetic "
                "--set data.imageSize=64 --set maxSteps=5 --set batch.global=8 "
                "--set accelerator.device=<device>",
                {"<device>": "cpu"},
            ),
        ),
    ),
    Story(
        "a job is tried on this machine first",
        (
            "cp README-1.yaml job.yaml; echo '    maxSteps: 2' > steps",
            "sed -i '/recipe:/r steps' job.yaml",
            Run("inceptionctl local run job.yaml --set epochs=1 --accelerator cpu"),
        ),
    ),
)
"""Without a cluster."""

STORIES: Final = (*CLUSTER, *INSTALL, *ALONE)
