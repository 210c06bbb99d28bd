"""What the service counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Figures:
    """Counters and histograms of one service, in a registry of its own."""

    def __init__(self, waiting: Callable[[], float], held_bytes: Callable[[], float]) -> None:
        """`waiting`: how many images have been taken and are not answered yet; `held_bytes`: of request bodies."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "classwise_requests", "Requests by path and status.", ["path", "status"], registry=self.registry
        )
        self.images = Counter(
            "classwise_images", "Images by result: answered or refused.", ["result"], registry=self.registry
        )
        self.seconds = Histogram(
            "classwise_request_seconds",
            "From the headers of a request to the end of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "classwise_batch_images",
            "Images that went through the model at once.",
            buckets=SIZES,
            registry=self.registry,
        )
        self.model_seconds = Counter(
            "classwise_model_seconds", "Time that batches took in the model.", registry=self.registry
        )
        queue = Gauge("classwise_queue_images", "Images taken and not answered yet.", registry=self.registry)
        queue.set_function(waiting)
        held = Gauge("classwise_held_bytes", "Request bodies in memory.", registry=self.registry)
        held.set_function(held_bytes)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)
