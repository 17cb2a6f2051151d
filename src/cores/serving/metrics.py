"""What a server tells Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

PATHS = ("/v1/segment", "/v1/chat", "/healthz", "/readyz", "/metrics")  # others are one: a stranger may name any
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
QUESTIONS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts of one server, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "cores_requests", "Requests answered", labelnames=("path", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "cores_request_seconds", "Time to the whole answer", ("path",), buckets=SECONDS, registry=self.registry
        )
        self._batches = Histogram(
            "cores_batch_questions", "Questions answered together", buckets=QUESTIONS, registry=self.registry
        )

    def request(self, path: str, status: int | None, seconds: float) -> None:
        """Count a request; `status` None: its client left before there was one."""
        path = path if path in PATHS else "other"
        self._requests.labels(path, str(status or "left")).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, questions: int) -> None:
        """Count a batch."""
        self._batches.observe(questions)

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Tell a number that somebody else counts, whenever it is asked for."""
        Gauge(f"cores_{name}", what, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
