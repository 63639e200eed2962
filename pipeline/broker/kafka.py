"""What a Kafka that was found or started can do for its user."""

from pipeline.errors import BrokerError


class Kafka:
    """A Kafka that answers. `origin` says where it came from: configured, running, docker or local.

    Faults can be done to a Kafka that was started here: `kill`, `pause` and the rest raise BrokerError on others.
    Nodes are numbered from 1.
    """

    def __init__(self, bootstrap_servers: str, origin: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.origin = origin

    def stop(self) -> None:
        """Stop what was started here, in order. Does nothing to a Kafka that somebody else runs."""

    def is_down(self) -> bool:
        """Whether a node that was started here has ended. What somebody else runs is not looked at."""
        return False

    def kill(self, node: int = 1) -> None:
        """End a node at once, as a power cut would (SIGKILL)."""
        raise self._not_ours("killed")

    def stop_node(self, node: int = 1) -> None:
        """Shut a node down in order."""
        raise self._not_ours("stopped")

    def restart(self, node: int = 1) -> None:
        """Start a node that was killed or stopped (a running one is stopped first), with its address and its data."""
        raise self._not_ours("restarted")

    def pause(self, node: int = 1) -> None:
        """Let a node stand still without closing its connections (SIGSTOP)."""
        raise self._not_ours("paused")

    def resume(self, node: int = 1) -> None:
        """Let a paused node go on."""
        raise self._not_ours("resumed")

    def _not_ours(self, done: str) -> BrokerError:
        return BrokerError(
            f"This Kafka cannot be {done} from here: it is not a local one started by this process.",
            f"{self.bootstrap_servers} ({self.origin})",
        )
