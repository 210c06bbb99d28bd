"""The service as a command and as a server: addresses, headers, signals, options."""

import dataclasses
import json
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from classwise.console import Console
from classwise.errors import ConfigError, ModelError
from classwise.model.classifier import build_classifier
from classwise.model.heads import ClassHead
from classwise.run.api import Run
from classwise.run.predictor import Predictor
from classwise.serve.engine import service_engine
from classwise.serve.limits import Limits
from classwise.serve.model import ServedModel, served_model
from classwise.serve.server import bound_socket
from tests.helpers.scenes import command
from tests.helpers.served import (
    LIMITS,
    SECONDS,
    Running,
    command_running,
    drawn,
    exchange,
    read_all,
    request,
    running,
    status_of,
    wait_until,
)

RAW = {"Content-Type": "image/png"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_once_what_has_begun_is_answered(trained: Path, number: signal.Signals) -> None:
    """A request whose last byte comes after the signal is answered; new connections are refused; the exit code is 0,
    and nothing but the first line was written to stderr."""
    with command_running(trained / "run") as (process, port):
        data = request(drawn(), RAW)
        with socket.create_connection(("127.0.0.1", port), SECONDS) as begun:
            begun.sendall(data[:-1])
            wait_until(lambda: holds_a_body(port))
            process.send_signal(number)
            wait_until(lambda: refuses_connections(port))
            assert process.poll() is None
            begun.sendall(data[-1:])
            answer = read_all(begun)
        assert status_of(answer) == 200
        assert b"connection: close" in answer.lower()
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert out == ""
    assert all(line.startswith("starting to serve") for line in err.splitlines()), err


def holds_a_body(port: int) -> bool:
    """Whether the body of some request is being read."""
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=SECONDS).text
    return not re.search(r"^classwise_held_bytes 0\.0$", metrics, re.MULTILINE)


def refuses_connections(port: int) -> bool:
    """Whether no new connection is taken."""
    try:
        socket.create_connection(("127.0.0.1", port), SECONDS).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_port_in_use_is_one_line(trained: Path) -> None:
    with bound_socket("127.0.0.1", 0) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        result = command("serve", trained / "run", "--port", port)
    assert (result.code, result.out) == (1, "")
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert f"--port: {port} at 127.0.0.1 cannot be used" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--port", "70000"), "--port: found 70000"),
        (("--host", "no such host"), "--host: found 'no such host'"),
        (("--engine", "compile"), "--engine: found 'compile', allowed: auto, onnx, torch"),
        (("--queue", "3"), "--queue: found 3, allowed: --max-images (64) or more"),
        (("--batch", "0"), "--batch: found 0"),
        (("--timeout", "-1"), "--timeout: found -1"),
        (("--timeout", "inf"), "--timeout: found inf"),
        (("--max-megapixels", "0"), "--max-megapixels: found 0"),
        (("--max-megapixels", "1e-7"), "--max-megapixels: found 1e-07, allowed: 0.000001 or more"),
        (("--max-megabytes", "0"), "--max-megabytes: found 0"),
        (("--max-megabytes", "nan"), "--max-megabytes: found nan"),
        (("--ensemble", "logits"), "--ensemble: found 'logits'"),
        (("--tta", "sideways"), "inference.tta"),
    ],
)
def test_wrong_options_are_said(trained: Path, options: tuple[str, ...], message: str) -> None:
    port = () if "--port" in options else ("--port", "0")
    result = command("serve", trained / "run", *port, *options)
    assert result.code == 1
    assert message in result.err


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    result = command("serve", tmp_path, "--port", "0")
    assert result.code == 1
    assert str(tmp_path) in result.err


def test_missing_packages_are_said(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    result = command("serve", trained / "run", "--port", "0")
    assert result.code == 1
    assert 'pip install "classwise[serve]"' in result.err


def test_options_take_effect(trained: Path) -> None:
    """The log, the limits and a further name of the host; and a note where others can reach it."""
    options = (
        "--host",
        "0.0.0.0",
        "--log",
        "--max-images",
        "2",
        "--max-megapixels",
        "0.001",
        "--engine",
        "torch",
    )
    with command_running(trained / "run", *options, "--max-megabytes", "0.02") as (process, port):
        url = f"http://127.0.0.1:{port}"

        def post(*sizes: tuple[int, int]) -> httpx.Response:
            files = [("file", ("a.png", drawn(1, size))) for size in sizes]
            return httpx.post(f"{url}/predict", files=files, trust_env=False, timeout=SECONDS)

        assert post((30, 30)).status_code == 200
        assert "1,000" in post((40, 40)).json()["images"][0]["error"]
        assert post(*[(5, 5)] * 3).status_code == 413
        assert post((100, 100)).status_code == 413
        bad_form = exchange(port, request(b"no form", {"Content-Type": "multipart/form-data; boundary=xyz"}))
        assert status_of(bad_form) == 400
        health = httpx.get(f"{url}/health", headers={"Host": "any.example"}, trust_env=False).json()
        assert (health["engine"], health["max_images"], health["max_bytes"]) == ("torch", 2, 20_000)
        process.terminate()
        _, err = process.communicate(timeout=SECONDS)
    assert "there is no authentication" in err
    lines = [line for line in err.splitlines() if line.startswith("127.0.0.1 ")]
    assert [line.split(" ms")[0].rsplit(" ", 1)[0] for line in lines] == [
        *(f"127.0.0.1 POST /predict {status}" for status in (200, 422, 413, 413, 400)),
        "127.0.0.1 GET /health 200",
    ]
    others = [line for line in err.splitlines() if line not in lines]
    assert all(line.startswith(("starting to serve ", "note: ")) for line in others), others


def test_on_loopback_other_names_of_the_host_are_refused(model: ServedModel) -> None:
    """A page under a name that leads to 127.0.0.1 cannot ask the service (DNS rebinding)."""
    with running(model, allowed_hosts=("Known.example",)) as service:
        statuses = {
            host: service.client.get("/health", headers={"Host": host}).status_code
            for host in (
                "localhost",
                "LOCALHOST:80",
                "127.0.0.1:9",
                "[::1]:9",
                "known.example",
                "evil.example",
                "[",
                "",
            )
        }
    assert statuses == {
        **dict.fromkeys(("localhost", "LOCALHOST:80", "127.0.0.1:9", "[::1]:9", "known.example"), 200),
        **dict.fromkeys(("evil.example", "[", ""), 421),
    }


def test_every_answer_has_the_headers_that_protect_a_browser(model: ServedModel) -> None:
    with running(model) as service:
        answers = [
            service.client.get(path) for path in ("/", "/health", "/metrics", "/openapi.json", "/none")
        ]
        answers += [service.predict(("a.png", drawn())), service.predict(("a.png", b""))]
        answers.append(service.client.get("/", headers={"Host": "evil.example"}))
        answers.append(service.client.options("/predict", headers={"Origin": "http://evil.example"}))
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers


def test_the_description_is_complete(model: ServedModel) -> None:
    """Every route, every status that tests of this folder see, and every field of the answers."""
    with running(model) as service:
        found = service.client.get("/openapi.json").json()
        answer = service.predict(("a.png", drawn())).json()
    assert set(found["paths"]) == {"/predict", "/health", "/metrics"}
    predict = found["paths"]["/predict"]["post"]
    assert set(predict["responses"]) == {"200", "400", "408", "413", "415", "422", "500", "503"}
    assert set(predict["requestBody"]["content"]) == {
        "multipart/form-data",
        "image/*",
        "application/octet-stream",
    }
    schemas = found["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    (image,) = answer["images"]
    assert set(image) <= set(schemas["ImageAnswer"]["properties"])
    kinds = {"class": "ClassAnswer", "ordinal": "ClassAnswer", "multilabel": "LabelsAnswer"}
    kinds |= {"regression": "ValueAnswer", "ranking": "ScoreAnswer"}
    for target in image["targets"].values():
        assert set(target) <= set(schemas[kinds[target["type"]]]["properties"])
    assert json.dumps(found).count('"http') == 0


def test_figures_count_requests_images_and_time(model: ServedModel) -> None:
    with running(model) as service:
        for _ in range(3):
            service.predict(("a.png", drawn()), ("b.png", drawn(1)))
        service.client.get("/made/up/path")
        assert service.metric('classwise_requests_total{path="/predict",status="200"}') == 3
        assert service.metric('classwise_requests_total{path="other",status="404"}') == 1
        assert service.metric('classwise_images_total{result="answered"}') == 6
        assert service.metric("classwise_batch_images_sum") == 6
        assert service.metric('classwise_request_seconds_count{path="/predict"}') == 3
        assert service.metric("classwise_model_seconds_total") > 0
        assert "made/up" not in service.client.get("/metrics").text


def test_several_requests_go_over_one_connection(model: ServedModel) -> None:
    """Also where they are sent before the answer to the first has come."""
    one = request(drawn(), RAW | {"Connection": "keep-alive"})
    with running(model) as service:
        answer = exchange(service.port, one, one, request(drawn(), RAW))
    assert answer.count(b"HTTP/1.1 200 ") == 3


def test_torch_answers_where_onnx_runtime_cannot(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` says why; `onnx` refuses."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    lines: list[str] = []
    device = next(model.predictor.model.parameters()).device
    _, name = service_engine(model.predictor, "auto", device, lines.append)
    assert name == "torch"
    assert "onnxruntime" in lines[0]
    with pytest.raises(ModelError, match="onnxruntime"):
        service_engine(model.predictor, "onnx", device, lines.append)


def test_a_run_in_bf16_is_served_by_torch_unless_onnx_is_asked_for(model: ServedModel) -> None:
    """As by `predict`: in its own precision, and in float32 with the difference that bf16 makes."""
    predictor = dataclasses.replace(model.predictor, precision="bf16")
    assert service_engine(predictor, "auto", torch.device("cpu"), pytest.fail)[1] == "torch"
    assert service_engine(predictor, "onnx", torch.device("cpu"), pytest.fail)[1] == "onnx"


def test_an_engine_whose_numbers_differ_is_not_taken(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sys.modules["classwise.serve.engine"]._onnx_engine  # type: ignore[attr-defined]

    def wrong(classifier: Any, is_quick: bool) -> Any:
        engine = real(classifier, is_quick)
        return lambda images: {name: raw + 0.1 for name, raw in engine(images).items()}

    monkeypatch.setattr("classwise.serve.engine._onnx_engine", wrong)
    lines: list[str] = []
    device = next(model.predictor.model.parameters()).device
    assert service_engine(model.predictor, "auto", device, lines.append)[1] == "torch"
    assert "differ" in lines[0]


def test_limits_are_checked_before_the_model_is_read() -> None:
    with pytest.raises(ConfigError, match="--max-images"):
        Limits(max_images=0, max_bytes=1, queue=1, batch=1, timeout=1)


def test_the_code_of_a_run_is_asked_for(trained: Path) -> None:
    """`--trust` reaches the run: here there is no such code, and the words are those of `predict`."""
    first = command("serve", trained / "run", "--port", "0", "--trust", "12345678")
    second = command("predict", trained / "run", trained / "images", "--trust", "12345678")
    assert first.code == second.code == 1
    assert first.err.splitlines()[-1] == second.err.splitlines()[-1]


def test_tta_is_that_of_predict(trained: Path) -> None:
    opened = Run.open(trained / "run", tta="flip")
    model = served_model(opened, "auto", None, Console(quiet=True))
    (row,) = opened.predict([drawn(4)]).iter_rows(named=True)
    plain = served_model(Run.open(trained / "run"), "auto", None, Console(quiet=True))
    inputs = [model.prepare(drawn(4))]
    found, other = (one.answers(inputs)[0].model_dump()["targets"]["size"]["value"] for one in (model, plain))
    assert found == pytest.approx(row["size"], rel=1e-5)
    assert found != other


def test_help_names_every_option() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "classwise", "serve", "--help"], capture_output=True, text=True, check=True
    )
    for option in ("--host", "--port", "--engine", "--tta", "--ensemble", "--max-images", "--max-megabytes"):
        assert option in found.stdout
    for option in ("--max-megapixels", "--queue", "--batch", "--timeout", "--allow-host", "--log", "--trust"):
        assert option in found.stdout


def test_many_connections_at_once_are_answered(model: ServedModel) -> None:
    def ask(service: Running) -> int:
        return status_of(exchange(service.port, request(drawn(), RAW)))

    with running(model, Limits(8, LIMITS.max_bytes, 64, 4, 20.0)) as service, ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, [service] * 60)) == [200] * 60


def with_small_cnn(model: ServedModel) -> Predictor:
    """A predictor with the built-in network at a size whose pooling the quick exporter does not know."""
    small = build_classifier("small_cnn", "none", (20, 16), "squash", 0.0, {"label": 3}, seed=0)
    return dataclasses.replace(
        model.predictor,
        model=small,
        heads={"label": ClassHead(3)},
        targets=model.predictor.targets[:1],
        joint=(),
    )


def test_a_backbone_that_is_not_exported_in_a_moment_is_served_by_torch(
    model: ServedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line says why; the exporter's own output, which is pages, does not reach the terminal."""
    lines: list[str] = []
    _, name = service_engine(with_small_cnn(model), "auto", torch.device("cpu"), lines.append)
    assert name == "torch"
    (line,) = lines
    assert "--engine onnx takes longer to start" in line
    assert capfd.readouterr() == ("", "")


@pytest.mark.full
def test_the_other_exporter_is_tried_where_onnx_is_asked_for(model: ServedModel) -> None:
    """torch.export's, which takes ten seconds."""
    assert service_engine(with_small_cnn(model), "onnx", torch.device("cpu"), pytest.fail)[1] == "onnx"
