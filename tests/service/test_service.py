"""A model behind HTTP: the contract of `predictions_v1`, batches shared by clients, and bad input."""

from __future__ import annotations

import base64
import io
import json
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from naturelm.cli import main
from naturelm.engine.engine import Engine
from naturelm.engine.queries import EngineQuery
from naturelm.models import load_model
from naturelm.service import http, request_sounds
from naturelm.service.answering import Answering
from naturelm.service.batching import Batcher
from naturelm.service.request_sounds import Sounds
from tests.paths import SMALL_MODEL

pytest.importorskip("fastapi", reason="FastAPI is not installed (pip install 'naturelm[app]')")

from fastapi.testclient import TestClient

PLACE = "<Audio><AudioHere></Audio> "
RATE_HZ = 16_000


def samples(seconds=2.0, seed=0):
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * RATE_HZ)).astype(np.float32)


def wav(sound, rate_hz=RATE_HZ):
    file = io.BytesIO()
    soundfile.write(file, sound, rate_hz, format="WAV", subtype="FLOAT")
    return base64.b64encode(file.getvalue()).decode()


def item(sample_id="a", prompt=PLACE + "What is it?", sound=None, **changes):
    data = wav(samples() if sound is None else sound)
    return {
        "sample_id": sample_id,
        "messages": [{"role": "user", "content": prompt}],
        "audio_inputs": [{"payload_type": "base64_wav", "data": data, "sample_rate": RATE_HZ}],
        "generation_config": {"max_tokens": 5, "temperature": 0.0},
        **changes,
    }


class Counting(Engine):
    """The engine, and how many windows each call had."""

    calls: list[int]

    def answer(self, waveforms, sample_rate_hz=None):
        self.calls.append(len(waveforms))
        return super().answer(waveforms, sample_rate_hz)


@pytest.fixture(scope="module")
def engine():
    engine = Counting(load_model(SMALL_MODEL), [EngineQuery("?")])
    engine.calls = []
    return engine


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("recordings")
    soundfile.write(root / "owl.wav", samples(seed=3), RATE_HZ, subtype="FLOAT")
    outside = root.parent / "secret.wav"
    soundfile.write(outside, samples(), RATE_HZ)
    (root / "link.wav").symlink_to(outside)
    (root / "folder").mkdir()
    return root


@pytest.fixture(scope="module")
def client(engine, root):
    batcher, reader = Batcher(engine), Sounds(root)
    info = {"max_batch_size": 4, "schema_versions": ["predictions_v1"]}
    with TestClient(
        http.build_service(Answering(engine.model, batcher, reader), info), base_url="http://127.0.0.1"
    ) as client:
        yield client
    batcher.close()
    reader.close()


def predict(client, *items, **envelope):
    return client.post("/predict", json={"schema_version": "predictions_v1", "requests": items, **envelope})


def only(response):
    assert response.status_code == 200, response.text
    (answer,) = response.json()["responses"]
    return answer


def test_an_answer_is_the_engines_with_its_tokens_and_times(client, engine):
    answer = only(predict(client, item(prompt="What is it?")))
    ((expected,),) = Engine(engine.model, [EngineQuery("What is it?", 5)]).answer(samples()[None])
    assert answer["predictions"] == [expected.text]
    assert answer["error"] is None
    assert answer["finish_reason"] == ("length" if len(expected.token_ids) == 5 else "stop")
    assert answer["usage"]["completion_tokens"] == len(expected.token_ids)
    assert answer["usage"]["prompt_tokens"] == engine.prompt_tokens(EngineQuery("What is it?"))
    assert (answer["usage"]["sound_s"], answer["usage"]["processed_s"]) == (2.0, 2.0)
    assert answer["latency_sec"] > 0


def test_the_place_of_the_sound_may_be_named_or_not(client):
    named, unnamed = item("a", PLACE + "What?"), item("b", "What?")
    first, second = predict(client, named, unnamed).json()["responses"]
    assert first["predictions"] == second["predictions"] != []
    assert first["usage"]["prompt_tokens"] == second["usage"]["prompt_tokens"]


def test_each_item_is_answered_as_alone_whatever_it_was_sent_with(client):
    items = [
        item("a", "What is it?", samples(1.0, 1)),
        item("b", "Who calls?", samples(3.0, 2)),
        item("c", "What is it?", samples(4.0, 3)),
    ]
    together = predict(client, *items).json()["responses"]
    assert [part["sample_id"] for part in together] == ["a", "b", "c"]
    for part, sent in zip(together, items, strict=True):
        assert only(predict(client, sent))["predictions"] == part["predictions"]


def test_clients_share_batches(client, engine):
    engine.calls.clear()
    with ThreadPoolExecutor(4) as pool:
        sent = [item(str(n), "Which?", samples(1.0, n)) for n in range(12)]
        answers = list(pool.map(lambda one: only(predict(client, one)), sent))
    assert [answer["error"] for answer in answers] == [None] * 12
    assert sum(engine.calls) == 12
    assert len(engine.calls) < 12


def test_a_sound_longer_than_the_window_is_cut_and_the_usage_shows_it(client, engine):
    window_s = engine.model.window_s
    usage = only(predict(client, item(sound=samples(window_s + 2))))["usage"]
    assert (usage["sound_s"], usage["processed_s"]) == (window_s + 2, window_s)
    shorter = item(generation_config={"max_tokens": 2, "max_length_seconds": 1})
    assert only(predict(client, shorter))["usage"]["processed_s"] == 1.0


def test_the_rate_that_counts_is_the_files_own(client):
    sound = item()
    sound["audio_inputs"][0] |= {"data": wav(samples(1.0), 8000), "sample_rate": 48000}
    assert only(predict(client, sound))["usage"]["processed_s"] == 2.0


def test_a_temperature_draws_tokens_and_unknown_settings_are_accepted(client):
    config = {"max_tokens": 3, "temperature": 5.0, "top_p": 0.9, "max_length_seconds": None}
    drawn = only(predict(client, item(generation_config=config)))
    assert drawn["error"] is None
    assert only(predict(client, item()))["error"] is None


def bad(**changes):
    audio = {"payload_type": "base64_wav", "data": "", "sample_rate": RATE_HZ}
    return item(audio_inputs=[audio | changes])


TWO = [item()["audio_inputs"][0]] * 2
BAD_ITEMS = {
    "two sounds": (item(audio_inputs=TWO), "takes one sound"),
    "no sound": (item(audio_inputs=[]), "takes one sound"),
    "two places": (item(prompt=f"{PLACE}{PLACE}Same?"), "takes one sound"),
    "no question": (item(prompt=PLACE), "no question"),
    "an assistant": (item(messages=[{"role": "assistant", "content": "x"}]), "role 'assistant'"),
    "no base64": (bad(data="%%%"), "not valid base64"),
    "no sound file": (bad(data=base64.b64encode(b"hello" * 99).decode()), "cannot be decoded"),
    "empty": (bad(), "cannot be decoded"),
    "a URL": (bad(payload_type="file_url", data="http://127.0.0.1/x.wav"), "takes no file_url"),
    "another file": (bad(payload_type="file_path", data="/etc/passwd"), "no such file below"),
    "up": (bad(payload_type="file_path", data="../secret.wav"), "no such file below"),
    "a link out": (bad(payload_type="file_path", data="link.wav"), "no such file below"),
    "a folder": (bad(payload_type="file_path", data="folder"), "no such file below"),
    "a NUL": (bad(payload_type="file_path", data="a\0b"), "no such file below"),
    "an unknown kind": (bad(payload_type="mp3"), "payload_type"),
    "rate 0": (bad(sample_rate=0), "sample_rate"),
    "too many tokens": (item(generation_config={"max_tokens": 10**9}), "max_tokens"),
    "no messages": (item(messages=[]), "messages"),
    "long prompt": (item(prompt="x" * 20_001), "content"),
    "extra key": (item(surprise=1), "surprise"),
}


@pytest.mark.parametrize(("wrong", "reason"), BAD_ITEMS.values(), ids=BAD_ITEMS)
def test_a_bad_item_has_an_error_and_the_others_have_answers(client, wrong, reason):
    response = predict(client, item("good"), {**wrong, "sample_id": "bad"})
    good, failed = response.json()["responses"]
    assert (good["error"], len(good["predictions"])) == (None, 1)
    assert failed["sample_id"] == "bad"
    assert (failed["predictions"], failed["finish_reason"], failed["usage"]) == ([], None, None)
    assert reason in failed["error"]


def test_a_file_below_the_root_is_read(client, root):
    for name in ("owl.wav", "folder/../owl.wav", str(root / "owl.wav")):
        assert only(predict(client, bad(payload_type="file_path", data=name)))["error"] is None


def test_without_a_root_no_file_is_read():
    reader = Sounds()
    assert reader.payload_types == ["base64_wav"]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 99_999, b'{"requests": 1}', b'{"requests": [1]}'),
        *(b'{"schema_version": "v2", "requests": []}', b'{"requests": [{"sample_id": 7}]}'),
        b'{"requests": [], "more": 1}',
    ],
)
def test_a_body_that_holds_no_items_is_refused_with_a_reason(client, body):
    response = client.post("/predict", content=body)
    assert response.status_code == 400
    assert response.json()["error"]


def test_ids_that_appear_twice_are_refused(client):
    response = predict(client, item("a"), item("a"))
    assert (response.status_code, "appears twice" in response.json()["error"]) == (400, True)


def test_more_items_than_the_limit_are_413(client):
    response = predict(client, *(item(str(n)) for n in range(5)))
    assert (response.status_code, "at most 4" in response.json()["error"]) == (413, True)


def test_sounds_and_bodies_beyond_the_limits_are_refused(client, monkeypatch):
    monkeypatch.setattr(request_sounds, "MAX_SOUND_BYTES", 1 << 10)
    assert "larger than" in only(predict(client, item()))["error"]
    assert "larger than" in only(predict(client, bad(payload_type="file_path", data="owl.wav")))["error"]
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 1 << 10)
    assert predict(client, item()).status_code == 413


def test_other_web_pages_are_refused(client):
    assert client.get("/info", headers={"host": "evil.example"}).status_code == 403
    assert client.get("/info", headers={"origin": "http://evil.example"}).status_code == 403


def test_health_and_info(client):
    assert client.get("/health").status_code == 200
    assert client.get("/info").json()["schema_versions"] == ["predictions_v1"]


@pytest.mark.slow
def test_serve_answers_over_http_until_ctrl_c():
    command = [sys.executable, "-m", "naturelm.cli", "serve", "--model", str(SMALL_MODEL), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = line.partition(" is at ")[2].split()[0]
            with urllib.request.urlopen(f"{address}/info") as response:
                info = json.load(response)
            assert info["model"] == str(SMALL_MODEL)
            assert info["model_revision"]
            assert info["audio_payload_types"] == ["base64_wav"]
            body = json.dumps({"schema_version": "predictions_v1", "requests": [item()]}).encode()
            request = urllib.request.Request(f"{address}/predict", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request) as response:
                assert len(json.load(response)["responses"]) == 1
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "no-such-model"], "no-such-model"),
        (["--root", "nowhere"], "is not a directory"),
        (["--max-batch-size", "0"], "--max-batch-size"),
        (["--port", "70000"], "--port"),
    ],
)
def test_bad_options_are_one_sentence(arguments, reason):
    result = CliRunner().invoke(main, ["serve", *arguments])
    assert (result.exit_code, reason in result.output) == (2, True)


def test_a_taken_port_is_one_sentence():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, ["serve", "--model", str(SMALL_MODEL), "--port", port])
    assert (result.exit_code, f"port {port} is taken" in result.output) == (2, True)
