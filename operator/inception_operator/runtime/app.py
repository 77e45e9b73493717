"""Puts the parts of the operator together and owns every asyncio task.

A task that ends or fails ends the process, with its reason: kubelet restarts it, and a fresh list
repairs more than any attempt to go on with a part missing.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Collection, Coroutine
from dataclasses import replace
from typing import Any

import kopf
from kubernetes.aio.client.configuration import Configuration
from prometheus_client import disable_created_metrics

from inception_operator.accelerators.resolve import check_disjoint, load_profiles
from inception_operator.contract.errors import (
    ApiError,
    OperatorError,
    ProfileError,
    SettingsError,
)
from inception_operator.contract.types import Json
from inception_operator.decide.reconcile import Context

from .apply import Applier
from .certificate import Certificate
from .client import JOBS, NODES, PODS, Client, load_configuration
from .controller import Controller
from .courier import Courier
from .events import EventPoster
from .fence import Fence
from .job_cache import JobCache
from .job_watch import make_registry, make_settings
from .leader import Leader
from .metrics import Metrics
from .metrics_access import MetricsAccess
from .node_watch import LeavingNodes, NodeWatch
from .nodes import Nodes
from .observer import Observer
from .pod_cache import PodCache
from .pod_events import PodEvents
from .probe import Probe
from .rank_watch import RankWatch
from .resync import Resync
from .scraper import Scraper
from .server import Guard, Server
from .settings import Settings
from .workqueue import Key, WorkQueue, work

RIGHTS_TRIES = 3
RIGHTS_PAUSE = 2.0
"""An API server that has just started refuses everybody until it has read the roles."""
RIGHTS_POLL = 600.0
"""By then the kubelet has forgotten the last restart, so that one more costs ten seconds only."""

_log = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; anything that breaks is raised."""
    # A second series per counter with the time it was made in: nobody asks for these.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    configuration = await load_configuration(settings.kubeconfig)
    app = App(settings, configuration)
    try:
        await app.run()
    finally:
        # A watch of kopf's that is cut off is a generator whose own cleaning up fails at the end.
        asyncio.get_running_loop().set_exception_handler(_but_for_generators)
        await app.close()


def _but_for_generators(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if "asyncgen" not in context:
        loop.default_exception_handler(context)


class App:
    """One operator process: all its parts, and the task of each."""

    def __init__(self, settings: Settings, configuration: Configuration) -> None:
        self._settings = settings
        self._context = _context(settings)
        path = settings.metrics_cert_path
        certificate = None if path is None else Certificate(path)
        self._configuration = configuration
        self._stop = asyncio.Event()
        self._leading = False
        self._namespaces = settings.namespaces
        self._left_out: tuple[str, ...] = ()

        self._jobs = JobCache(settings.shard)
        self._metrics = Metrics(
            self._jobs.values,
            self._pods_of,
            self._context.profiles,
            server=str(configuration.host),
        )
        containment = self._metrics.containment
        fence = Fence()
        self._client = Client(
            configuration,
            self._metrics.count_request,
            fence=fence if settings.leader_election else None,
        )
        self._queue = WorkQueue(counts=self._metrics.queue_counts)
        notify = self._queue.add

        # What is watched and asked: everything calls notify with the key of a job.
        self._pods = PodCache(
            self._client, notify, containment, settings.namespaces, settings.shard
        )
        self._probe = Probe(notify, clock=time.monotonic)
        self._resync = Resync(
            self._client,
            self._jobs,
            notify,
            interval=settings.resync_seconds,
            namespaces=settings.namespaces,
        )
        self._leaving = LeavingNodes()
        self._signs = settings.leave_signs
        self._leaving.known = not self._signs
        self._node_watch = NodeWatch(
            self._client, self._wake_jobs_on, containment, self._signs, self._leaving
        )
        self._scraper = Scraper(
            self._jobs,
            self._pods,
            self._probe,
            notify,
            containment,
            interval=settings.scrape_seconds,
            report_interval=settings.progress_seconds,
        )
        self._ranks = RankWatch(
            self._jobs,
            self._pods,
            self._probe,
            notify,
            containment,
            interval=settings.scrape_seconds,
        )

        # What works on a key: observe, decide, apply.
        nodes = Nodes(self._client, time.monotonic)
        pod_events = PodEvents(self._client, time.monotonic)
        observer = Observer(
            self._pods, self._probe, self._scraper, self._ranks, nodes, pod_events, self._leaving
        )
        self._events = EventPoster(
            self._client, containment, settings.identity, depth=lambda: self._queue.depth
        )
        applier = Applier(
            self._client,
            self._jobs,
            self._pods,
            self._events,
            self._metrics,
            Courier(self._probe.deliver),
            settings.identity,
        )
        self._controller = Controller(
            self._jobs, observer, applier, self._queue, self._metrics, containment, self._context
        )

        self._metrics.shards.labels(str(settings.shard.index)).set(settings.shard.count)
        self._metrics.standard.workers.set(settings.workers)
        self._leader = Leader(self._client, settings, fence)
        self._server = Server(
            settings.http_host,
            settings.http_port,
            healthy=self._sick,
            ready=self._unready,
            metrics=self._page,
            notify=self._controller.notify,
            guard=_guard(settings, certificate, self._client),
        )

    async def run(self) -> None:
        """Serve, wait for leadership, work; returns after a signal."""
        await self._server.start()
        self._take_signals()
        _log.info("listening on port %d", self._server.port)
        if not self._settings.shard.alone:
            _log.info("this is shard %s of the jobs", self._settings.shard)
        if self._settings.metrics_secure:
            _log.info("/metrics is on port %d, over TLS", self._server.metrics_port)
        operating = asyncio.create_task(self._operate(), name="operator")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait((operating, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            operating.cancel()
            await asyncio.wait((operating, stopping))
        # A signal cancels the work; an error in it is the reason why the process ends.
        if not operating.cancelled() and (error := operating.exception()) is not None:
            raise error

    async def close(self) -> None:
        """Close all connections and timers."""
        self._queue.close()
        await self._server.close()
        await self._probe.close()
        await self._client.close()

    async def _operate(self) -> None:
        await self._check_namespaces()
        if self._settings.leader_election:
            await self._leader.acquire()
        self._leading = True
        try:
            await self._check_nodes()
            async with asyncio.TaskGroup() as group:
                if self._settings.leader_election:
                    _spawn(group, "lease", self._leader.renew())
                _spawn(group, "pods", self._pods.run())
                _spawn(group, "events", self._events.run())
                _spawn(group, "scraper", self._scraper.run())
                _spawn(group, "ranks", self._ranks.run())
                # Before all pods are listed, a missing one would look like a lost one; and kopf
                # gives up, in many words, where the API server is not reached within seconds.
                await self._pods.wait_synced()
                _spawn(group, "jobs", self._watch_jobs())
                _spawn(group, "resync", self._resync.run())
                if self._left_out:
                    _spawn(group, "namespaces", self._wait_for_rights())
                if self._signs:
                    _spawn(group, "nodes", self._node_watch.run())
                for number in range(self._settings.workers):
                    _spawn(group, f"worker-{number}", work(self._queue, self._controller.handle))
                _log.info("working")
        finally:
            # The Lease last of all that writes: the next leader begins at once.
            self._leading = False
            await self._events.drain()
            await self._leader.release()

    async def _check_namespaces(self) -> None:
        """Leave out namespaces without the rights to look after their jobs: whoever may delete the
        operator's Role in one must not stop those of all. Raises SettingsError when none is left.
        """
        # Later kopf would try for ever, and the liveness probe end the process for the silence.
        missing = await self._missing_rights()
        if not missing:
            return
        for namespace, text in missing.items():
            remedy = f"give the operator its Role in {namespace} or take it off the list"
            problem = f"--namespaces: {text}; {remedy}"
            if len(missing) == len(self._namespaces):
                raise SettingsError(problem)
            _log.error("%s; until then the jobs there are left alone", problem)
        self._left_out = tuple(missing)
        self._namespaces = tuple(name for name in self._namespaces if name not in missing)
        self._pods.leave_out(self._left_out)
        self._resync.leave_out(self._left_out)

    async def _missing_rights(self) -> dict[str, str]:
        """By namespace, what the operator may not do there."""
        missing: dict[str, str] = {}
        for again in reversed(range(RIGHTS_TRIES)):
            missing = {}
            for namespace in self._namespaces:
                try:
                    text = await self._missing_right(namespace)
                except ApiError as error:
                    _log.warning("the rights in %s are not known yet: %s", namespace, error)
                    continue
                if text is not None:
                    missing[namespace] = text
            if not missing:
                break
            if again:
                await asyncio.sleep(RIGHTS_PAUSE)
        return missing

    async def _missing_right(self, namespace: str) -> str | None:
        """What of the watches the operator may not have in a namespace, None for nothing."""
        for kind in (JOBS, PODS):
            for verb in ("list", "watch"):
                if not await self._client.allowed(verb, kind, namespace):
                    return f"the operator may not {verb} {kind.plural} in namespace {namespace}"
        return None

    async def _wait_for_rights(self) -> None:
        """End the process once it may look after a namespace that was left out: the next one begins
        with it.
        """
        while True:
            await asyncio.sleep(RIGHTS_POLL)
            for namespace in self._left_out:
                try:
                    text = await self._missing_right(namespace)
                except ApiError as error:
                    text = str(error)
                if text is None:
                    raise OperatorError(f"the rights in namespace {namespace} are back")
                _log.warning("the jobs of namespace %s are left alone: %s", namespace, text)

    async def _check_nodes(self) -> None:
        """Find out whether nodes can be read: jobs that ask for it are told when they cannot."""
        try:
            sees = await self._client.allowed("get", NODES)
        except ApiError as error:
            _log.warning("the right to read nodes is not known: %s", error)
            return
        if not sees:
            _log.warning("nodes cannot be read: failurePolicy.nodeLostSeconds has no effect")
        self._controller.context = replace(self._context, sees_nodes=sees)

    def _pods_of(self, key: Key) -> tuple[Json, ...]:
        return self._pods.pods(key)

    def _wake_jobs_on(self, nodes: Collection[str]) -> None:
        """Nodes are about to go, or stay after all."""
        for key in self._pods.jobs_on(nodes):
            self._queue.add(key)

    async def _watch_jobs(self) -> None:
        ready = asyncio.Event()
        reclaim = asyncio.create_task(self._reclaim_signals(ready), name="signals")
        try:
            await kopf.operator(
                registry=make_registry(self._configuration, self._jobs, self._queue.add),
                settings=make_settings(),
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                standalone=True,
                ready_flag=ready,
            )
        finally:
            reclaim.cancel()
        _log.info("kopf has ended")
        self._stop.set()

    async def _reclaim_signals(self, ready: asyncio.Event) -> None:
        """kopf installs signal handlers of its own when it starts, which would stop it alone."""
        await ready.wait()
        self._take_signals()

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    def _sick(self) -> str | None:
        """What is wrong with a leader whose watches or work stand still, else None."""
        # An operator that waits for the Lease has neither watches nor work.
        if not self._leading:
            return None
        ages = {"pod watch": self._pods.age, "job watch": self._resync.age}
        for name, age in ages.items():
            if age > self._settings.max_watch_age:
                return f"{name}: no sign of life for {age:.0f} s"
        if self._queue.oldest_age > self._settings.max_key_age:
            return f"work queue: the oldest key waits for {self._queue.oldest_age:.0f} s"
        return None

    def _unready(self) -> str | None:
        """Why this process could not do its work, or not take it over; else None."""
        if (problem := self._client.contact.problem) is not None:
            return problem
        if not self._leading and (problem := self._leader.problem) is not None:
            return problem
        if self._leading and (missing := self._pods.unsynced):
            return f"pods of {missing} are not listed yet"
        return None

    def _page(self) -> bytes:
        # Gauges of the moment are set when they are asked for.
        metrics = self._metrics
        metrics.depth.set(self._queue.depth)
        metrics.oldest.set(self._queue.oldest_age)
        metrics.standard.show_queue(self._queue.pending, self._queue.working)
        metrics.leader.set(int(self._leading))
        if self._settings.leader_election:
            metrics.standard.show_lease(self._leader.lease_name, self._leading)
        metrics.planned_moves.set(int(self._leading and self._node_watch.working))
        metrics.leaving_nodes.set(len(self._leaving))
        metrics.watch_age.labels("pods").set(self._pods.age if self._leading else 0)
        metrics.watch_age.labels("inceptiontrainings").set(self._resync.age if self._leading else 0)
        return metrics.page()


def _spawn(group: asyncio.TaskGroup, name: str, coroutine: Coroutine[Any, Any, Any]) -> None:
    group.create_task(_forever(name, coroutine), name=name)


async def _forever(name: str, coroutine: Coroutine[Any, Any, Any]) -> None:
    await coroutine
    # kopf ends when it is told to stop, and says then why in its own log.
    if name != "jobs":
        raise OperatorError(f"task {name} ended")


def _guard(settings: Settings, certificate: Certificate | None, client: Client) -> Guard | None:
    """What /metrics is guarded by; None where whoever reaches the port may read it."""
    if certificate is None:
        return None
    return Guard(settings.metrics_port, certificate, MetricsAccess(client))


def _context(settings: Settings) -> Context:
    """What decisions need besides a job: profiles, the trainer's image, our own address.

    Profiles of ``--profiles-dir`` replace built-in ones of the same name.
    """
    try:
        profiles = load_profiles()
        if settings.profiles_dir is not None:
            profiles |= load_profiles(settings.profiles_dir)
            check_disjoint(profiles.values())
    except (ProfileError, OSError) as error:
        raise SettingsError(f"--profiles-dir: {error}") from error
    return Context(
        profiles=profiles,
        image=settings.trainer_image,
        pull_policy=settings.trainer_pull_policy,
        notify_address=settings.notify_address,
        pod_policy=settings.pod_policy,
        pod_user=settings.pod_user,
    )
