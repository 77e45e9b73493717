"""The page of one job: what, where, how far, why it failed, where the time went, what next.

Pure: the job, its pods and its events as the API server gave them, and the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

import click

from inception_operator.client import figures
from inception_operator.client.figures import part, ratio, since, span, text
from inception_operator.client.outcome import sentence
from inception_operator.client.progress_line import bar
from inception_operator.client.text import clean, clean_line, program
from inception_operator.contract import conditions, names
from inception_operator.contract.names import Cause, ConditionType, Reason, State
from inception_operator.contract.types import Json

from .terminal import state_colour, table

_LABEL: Final = 12
_EVENTS: Final = 8
_MESSAGE_LINES: Final = 25
_BAR: Final = 24
# What to do about a job that has failed, by the reason of its root cause.
_REMEDIES: Final = {
    Cause.OOM_KILLED: "Raise the memory limit of the container trainer, or make batch.global or "
    "data.workers smaller.",
    Cause.DEVICE_OUT_OF_MEMORY: "Make batch.global smaller, or use more devices; the message names "
    "the batch that fits.",
    Cause.USAGE_ERROR: "Correct the command of the container trainer.",
    Cause.DATA_ERROR: "Correct the data that the message names; "
    "`inception-trainer data check` reads them all without training.",
    Cause.INPUT_MISSING: "See that the volume with the data is mounted, and data.path leads there.",
    Cause.CONFIG_ERROR: "Correct the key of spec.training that the message names.",
    Cause.CANNOT_RUN: "Correct the command or the image: the program was not found or not run.",
    Cause.NON_FINITE: "Lower optimizer.learningRate, or use another precision.",
    Cause.HANG: "Look at the stack in the message: that rank waits there.",
    Cause.CONTRACT_MISMATCH: "Use a trainer image of the operator's release (spec.image).",
    Cause.DEVICE_UNHEALTHY: "Have the device of that node looked at.",
    Cause.EVICTED: "Raise what the container trainer requests of the resource in the message.",
    Cause.LIMIT_EXCEEDED: "Raise the limit in the message.",
}


def describe(
    resource: Json,
    pods: Sequence[Json] | None,
    events: Sequence[Json],
    now: datetime,
    *,
    advises: bool = True,
    options: str = "",
) -> str:
    """The page. ``pods`` is None for who may not see them; the advice is for jobs of a cluster, to
    which ``options`` lead its commands.
    """
    of_pods = [each for each in events if _is_of_pod(each) and not _is_about_readiness(each)]
    parts = [
        _title(resource, now),
        _fields(_what(resource)),
        _section("Where", _where(resource, pods, now)),
        _section("How far", _fields(_progress(resource, now))),
        _section("Why", _why(resource, now)),
        _section("Time", _goodput(resource)),
        _section("Events", _events([each for each in events if not _is_of_pod(each)], now)),
        _section("Warnings of pods", _events(of_pods, now)),
    ]
    if advises:
        lines = advice(resource, options)
        parts.append(_section("Next", "\n".join(f"  {clean(line)}" for line in lines)))
    return "\n\n".join(each for each in parts if each)


def _title(resource: Json, now: datetime) -> str:
    meta = resource["metadata"]
    word = figures.state(resource)
    name = clean_line(f"{meta['name']} in {meta.get('namespace', 'default')}")
    age = since(meta.get("creationTimestamp"), now)
    return f"{name}: {click.style(clean_line(word), fg=state_colour(word))}, {age} old"


def _section(title: str, body: str) -> str:
    return f"{title}\n{body}" if body else ""


def _fields(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(
        f"  {label:<{_LABEL}}{clean_line(value)}"
        for label, value in pairs
        if value and value != "-"
    )


def _what(resource: Json) -> Iterator[tuple[str, str]]:
    spec = resource.get("spec") or {}
    training = spec.get("training") or {}
    recipe = training.get("recipe")
    model = text(part(resource, "status", "model") or part(training, "model", "name"))
    if training:
        yield "mode", text(training.get("mode") or "Train")
        yield "model", model
        yield "recipe", text(recipe)
    else:
        containers = part(spec, "template", "spec", "containers") or []
        command: list[object] = next(
            (each.get("command") for each in containers if each.get("command")), []
        )
        yield "program", " ".join(str(word) for word in command)
    yield "image", text(spec.get("image"))


def _where(resource: Json, pods: Sequence[Json] | None, now: datetime) -> str:
    nodes = part(resource, "status", "nodes") or {}
    lines = _fields(
        (
            ("nodes", text(nodes.get("summary"))),
            ("spares", text(nodes.get("spareReady"))),
            ("each has", text(part(resource, "status", "accelerator"))),
            ("checkpoint", text(part(resource, "status", "checkpointPath"))),
            ("avoided", ", ".join(_avoided(resource))),
        )
    )
    if pods is None:
        return f"{lines}\n  (you may not see the pods)"
    if not pods:
        return lines
    rows = [_pod_row(pod, now) for pod in pods]
    shown = table(("POD", "NODE", "PHASE", "READY", "STARTED"), rows, colour_of="")
    return "\n".join((lines, *(f"  {line}" for line in shown.splitlines())))


def _avoided(resource: Json) -> Iterator[str]:
    for node in part(resource, "status", "avoidedNodes") or []:
        yield f"{node.get('name')} ({node.get('reason')})"


def _pod_row(pod: Json, now: datetime) -> tuple[str, ...]:
    status = pod.get("status") or {}
    phase = "Terminating" if "deletionTimestamp" in pod["metadata"] else status.get("phase")
    ready = conditions.is_true(status.get("conditions") or [], "Ready")
    return (
        str(pod["metadata"]["name"]),
        text(part(pod, "spec", "nodeName")),
        text(phase),
        "yes" if ready else "no",
        f"{since(status['startTime'], now)} ago" if status.get("startTime") else "-",
    )


def _progress(resource: Json, now: datetime) -> Iterator[tuple[str, str]]:
    status = resource.get("status") or {}
    trainer = status.get("trainerStatus") or {}
    done = trainer.get("progressPercentage")
    if done is not None:
        yield "progress", bar(int(done), _BAR)
    yield "epoch", text(trainer.get("epoch"))
    yield "step", text(trainer.get("step"))
    remaining = trainer.get("estimatedRemainingSeconds")
    yield "left", span(remaining) if remaining is not None else ""
    yield "images/s", text(trainer.get("samplesPerSecond"))
    yield "loss", text(trainer.get("loss"))
    top1, top5 = trainer.get("accuracyTop1"), trainer.get("accuracyTop5")
    if top1 is not None:
        yield "accuracy", f"top-1 {ratio(top1)}" + (f", top-5 {ratio(top5)}" if top5 else "")
    saved = trainer.get("lastCheckpointTime")
    yield "saved", f"{since(saved, now)} ago" if saved else ""
    attempt, restarts = status.get("attempt"), status.get("restarts")
    if attempt:
        most = part(resource, "spec", "failurePolicy", "maxRestarts")
        counted = status.get("restartsCountTowardsMax", 0)
        limit = f", {counted} of {most} that count" if most is not None else ""
        yield "attempt", f"{attempt} ({restarts or 0} restarts after failures{limit})"
    yield "started", text(status.get("startTime"))
    yield "ended", text(status.get("completionTime"))


def _why(resource: Json, now: datetime) -> str:
    lines = []
    if ended := sentence(resource):
        lines.append(f"  {clean_line(ended)}")
    cause = part(resource, "status", "rootCause")
    if not cause:
        return "\n".join(lines)
    place = [f"attempt {cause.get('attempt')}"]
    place += [
        f"{key} {cause[key]}"
        for key in ("rank", "step", "pod", "node", "exitCode")
        if cause.get(key) is not None
    ]
    when = f" {since(cause.get('time'), now)} ago" if cause.get("time") else ""
    head = clean_line(f"{cause.get('reason')} in {', '.join(place)}{when}")
    lines.append(f"  {head.replace('exitCode', 'exit code')}")
    message = clean(cause.get("message") or "").strip().splitlines()
    lines += [f"    {line}" for line in message[:_MESSAGE_LINES]]
    if len(message) > _MESSAGE_LINES:
        lines.append(f"    … {len(message) - _MESSAGE_LINES} more lines: -o yaml")
    return "\n".join(lines)


def _goodput(resource: Json) -> str:
    # A third of a second with all that it imports; the other commands need none of it.
    from inception_operator.decide import goodput

    found = part(resource, "status", goodput.KEY)
    if not found:
        return ""
    seconds = {cause: int(part(found, "seconds", cause) or 0) for cause in goodput.CAUSES}
    total = sum(seconds.values())
    lines = [f"  goodput     {ratio(found.get('ratio'))} of {span(total)} since it was admitted"]
    for cause, count in seconds.items():
        if count:
            now_growing = "  (now)" if found.get("cause") == cause else ""
            lines.append(f"  {cause:<14}{span(count):>8}  {count / total:>5.0%}{now_growing}")
    return "\n".join(lines)


def _is_of_pod(event: Json) -> bool:
    return bool(part(event, "involvedObject", "kind") == "Pod")


def _is_about_readiness(event: Json) -> bool:
    """Whether the kubelet says that a pod is not ready yet or any more.

    It does so of every pod that starts, and twice; where pods never get ready the job's own
    conditions say so, and why.
    """
    message = str(event.get("message") or "")
    return event.get("reason") == "Unhealthy" and message.startswith("Readiness probe ")


def _events(events: Sequence[Json], now: datetime) -> str:
    rows = [
        (
            since(event.get("lastTimestamp") or event.get("eventTime"), now),
            text(part(event, "involvedObject", "name") if _is_of_pod(event) else event.get("type")),
            text(event.get("reason")),
            clean_line(event.get("message") or "")[:160],
        )
        for event in events[-_EVENTS:]
    ]
    if not rows:
        return ""
    kind = "POD" if _is_of_pod(events[-1]) else "TYPE"
    shown = table(("AGO", kind, "REASON", "MESSAGE"), rows, colour_of="")
    return "\n".join(f"  {line}" for line in shown.splitlines())


def advice(resource: Json, options: str = "") -> list[str]:
    """What the user may do next, as the job is now."""
    if manager := figures.other_manager(resource):
        return [
            f"{manager} manages it (spec.runPolicy.managedBy): the operator leaves it alone, and "
            "its pods may be on another cluster."
        ]
    name, command = f"{resource['metadata']['name']}{options}", program()
    found = conditions.of(resource)
    match figures.state(resource):
        case State.REJECTED:
            return [
                "Nothing is done until the spec is corrected: the line above says what.",
                f"kubectl edit itrain {name}",
            ]
        case State.FAILED:
            return [*_after_failure(resource), f"{command} logs {name}"]
        case State.SUCCEEDED:
            return [f"{command} logs {name}", f"{command} delete {name}"]
        case State.SUSPENDED if names.LABEL_QUEUE in (resource["metadata"].get("labels") or {}):
            return [f"Its queue has not admitted the job yet: kubectl get workloads{options}"]
        case State.SUSPENDED:
            return [f"{command} resume {name}"]
        case State.PENDING | State.STARTING:
            waiting = conditions.find(found, ConditionType.PODS_READY) or {}
            return _while_waiting(waiting, f"{command} watch {name}", f"{command} doctor{options}")
        case _:
            return [f"{command} watch {name}", f"{command} logs --follow {name}"]


def _while_waiting(waiting: Json, watch: str, doctor: str) -> list[str]:
    reason, message = waiting.get("reason"), clean_line(waiting.get("message") or "")
    if not waiting:
        return [
            "No operator has looked at the job yet. If that stays so:",
            doctor,
        ]
    if reason in (Reason.WAITING_FOR_PODS, Reason.ALL_PODS_READY, Reason.ENOUGH_PODS_READY):
        return [watch]
    return [f"It waits for its pods: {reason}: {message}"]


def _after_failure(resource: Json) -> list[str]:
    found = conditions.of(resource)
    reason = conditions.reason(found, ConditionType.FAILED)
    if reason == Reason.DEADLINE_EXCEEDED:
        return ["Raise runPolicy.activeDeadlineSeconds; the same name resumes from its checkpoint."]
    if reason == Reason.PRE_RUNNING_DEADLINE_EXCEEDED:
        return ["Free or add nodes, or raise runPolicy.preRunningDeadlineSeconds."]
    remedy = _REMEDIES.get(str(part(resource, "status", "rootCause", "reason") or ""))
    again = "A job that has failed stays so: delete it and create it anew, it resumes from there."
    return [*([remedy] if remedy else []), again]
