"""What a torch needs that was built without libuv, as Debian's is: the plain store.

Torch takes the store with libuv unless it is told otherwise, and fails where there is none. It is
told in three ways, since no release heeds one of them in all places where it makes a store.
"""

import functools
import importlib
import os
import socket
from typing import Any

_PLACES = ("rendezvous", "elastic.rendezvous.static_tcp_rendezvous")
_PORT_KEY = "inception/port"


def avoid_missing_libuv(*, foreign: bool) -> bool:
    """Take the plain store in this process and all that it starts, where there is no other.

    ``foreign``: the ranks run a program of others, perhaps in an interpreter of its own. True when
    they make a store themselves, at a port that the rendezvous tells.
    """
    if not _is_missing():
        return False
    os.environ["USE_LIBUV"] = "0"
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    for name in _PLACES:
        module = importlib.import_module(f"torch.distributed.{name}")
        vars(module)["TCPStore"] = functools.partial(TCPStore, use_libuv=False)
    return foreign and _have_ranks_make_their_store()


def _is_missing() -> bool:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    try:
        TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, use_libuv=True)
    except TypeError:
        return False  # a torch from before libuv
    except RuntimeError as error:
        if "libuv" not in str(error).lower():
            raise
        return True
    return False


def _have_ranks_make_their_store() -> bool:
    """Let rank 0 host the store of the ranks, at a port of its own.

    In an interpreter of its own a rank is told by the environment alone, and torch does not look
    there when it makes a client of the agent's store.
    """
    module = importlib.import_module(f"torch.distributed.{_PLACES[1]}")
    kind: Any = module.StaticTCPRendezvous
    if not hasattr(kind, "use_agent_store"):
        return False  # a torch that does not yet take libuv unasked
    meet = kind.next_rendezvous

    def meet_at_another_port(self: Any) -> Any:
        info = meet(self)
        if self.rank == 0:
            info.store.set(_PORT_KEY, str(_free_port()))
        # Waits until the first node has said it.
        info.bootstrap_store_info.master_port = int(info.store.get(_PORT_KEY))
        return info

    kind.next_rendezvous = meet_at_another_port
    kind.use_agent_store = property(lambda _: False)
    return True


def _free_port() -> int:
    with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
