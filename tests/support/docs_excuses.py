"""The commands of the documents that no test runs, and why."""

from __future__ import annotations

from typing import Final

EXCUSED: Final = {
    "installs into the reader's own environment; the packages are those of requirements/": (
        "pipx install '.[cli]'",
        "pip install '.[cli]'",
        "pip install '.[cli,torch,trainer]'",
        "pip install '.[trainer,torch]'",
    ),
    "takes the whole demo, or all tests; the nightly run has both": (
        "make demo",
        "make demo CLUSTER=kind",
        "make test",
    ),
    "needs docker; tests/e2e/test_images.py builds the same Dockerfile with buildkit": (
        "docker buildx build --target operator -t registry/you/inception-operator:0.1.0 --push .",
        "docker buildx build --target trainer -t registry/you/inception-trainer:0.1.0 --push .",
        "docker buildx build --target trainer --build-arg BASE_IMAGE=vendor/pytorch:tag "
        "-t registry/you/inception-trainer:0.1.0-vendor --push .",
        "docker buildx build --target trainer --build-arg BASE_IMAGE=<base> "
        "-t registry/you/inception-trainer:0.1.0-<vendor> --push .",
        "docker buildx build --target trainer --build-context wheels=.cache/wheels/trainer -t … .",
        "docker buildx build --target trainer "
        "--output type=oci,dest=trainer.tar,rewrite-timestamp=true …",
        "docker run --rm --entrypoint python3 <image> -c 'import torch; print(torch.__version__)'",
        "docker run --rm <image> recipes",
        "make images",
        "make images IMAGE_FLAGS=--load",
    ),
    "a cluster of another maker; what is installed into it afterwards is run": (
        "kind create cluster --name trainings",
        "kind load docker-image inception-operator:0.1.0 inception-trainer:0.1.0 --name trainings",
        "docker save inception-operator:0.1.0 inception-trainer:0.1.0 | "
        "sudo k3s ctr images import -",
        "export KUBECONFIG=/etc/rancher/k3s/k3s.yaml",
    ),
    "looks at a release that is published; none is": (
        "cosign verify ghcr.io/OWNER/REPO/inception-operator:X.Y.Z "
        "--certificate-oidc-issuer https://token.actions.githubusercontent.com "
        "--certificate-identity "
        "https://github.com/OWNER/REPO/.github/workflows/release.yml@refs/tags/vX.Y.Z",
        "cosign verify-attestation --type cyclonedx … "
        "ghcr.io/OWNER/REPO/inception-operator:X.Y.Z-amd64",
        "gh attestation verify oci://ghcr.io/OWNER/REPO/inception-operator:X.Y.Z --repo OWNER/REPO",
    ),
    "needs the release before; tests/integration/test_moving.py does it": (
        "helm upgrade inception-operator <chart of before> -n inception-system "
        "--reset-then-reuse-values --set crds.enabled=false",
    ),
    "a node of this machine; tests/localcluster has these commands": (
        "python -m localcluster build",
        "python -m localcluster up --device cambricon.com/mlu=4",
        "python -m localcluster up --dra-driver mlu.example.com=4",
        "python -m localcluster up --name big --flavour control-plane --kwok-nodes 100 "
        "--resource nvidia.com/gpu=8",
        "python -m localcluster kubectl --name big get nodes",
        "python -m localcluster build-image localhost/trainer:dev --context . --target trainer",
        "python -m localcluster status; python -m localcluster logs kubelet; "
        "python -m localcluster down",
        "python -m localcluster prune",
    ),
    "needs containers, which fake nodes do not run": (
        "kubectl debug -n inception-system -it deploy/inception-operator --image=… "
        "--target=operator",
        "kubectl cp /data/pets/. loader:/pets",
        "kubectl exec loader -- chmod -R a+rX /pets",
        "kubectl logs POD -n NAMESPACE",
        "kubectl inception logs digits --rank 3 --attempt 2",
        "kubectl inception preflight -f job.yaml",
        "kubectl inception preflight digits --recipe bninception-digits --accelerator cpu "
        "--nodes 2 --checkpoint my-claim",
        "kubectl inception checkpoints promote digits",
        "kubectl inception checkpoints promote digits 120 --name before-the-cut "
        "--to s3://bucket/serving",
        "kubectl -n inception-system logs pod/inception-operator-test",
    ),
    "what a user's container or a vendor's image runs; nothing of ours": (
        "python train.py",
        "python train.py …",
        "python -m package …",
        "torchrun [options] train.py …",
        "python -m torch.distributed.run …",
        "python -m torch.distributed.launch --use_env …",
        "python3 /opt/inception-launcher -- <command> <args>",
        "python3 -m venv",
        "python3 -c 'import torch'",
        "source set_env.sh",
    ),
    "a test of its own": ("pytest tests/trainer/test_config_rules.py",),
}
"""Why these are not run, by reason."""
