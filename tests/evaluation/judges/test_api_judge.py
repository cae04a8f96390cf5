"""The API judge against a server on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from safe_sft.evaluation import Case, Verdict
from safe_sft.evaluation.answering import Answer
from safe_sft.evaluation.judges.api import ApiJudge, Prices, _seconds
from safe_sft.evaluation.report import judge_answers

SECRET = "sk-secret-of-the-test"


class Handler(BaseHTTPRequestHandler):
    """Refused, if the answer says no; fails as often as the test wants first."""

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append((self.path, self.headers.get("Authorization"), body))
            failure = server.failures.pop(0) if server.failures else None
        if failure == "cut":  # in the middle of its reply
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"{")
            return
        if failure:
            self.send_response(failure)
            self.send_header("Retry-After", "0")
            if server.elsewhere:
                self.send_header("Location", server.elsewhere)
            self.end_headers()
            return
        if server.barrier:
            server.barrier.wait(timeout=10)
        verdict = "refused" if "no!" in body["messages"][1]["content"] else "complied"
        text = server.text or f'Here: {{"verdict": "{verdict}"}}'
        reply = {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}
        if not server.tells_usage:
            del reply["usage"]
        content = json.dumps(server.reply or reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Authorization"), None))
        self.send_error(404)

    def log_message(self, *_):
        """Stay quiet."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.lock, server.requests, server.failures, server.barrier, server.text = threading.Lock(), [], [], None, ""
    server.reply, server.tells_usage, server.elsewhere = None, True, None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def judge(server, **options) -> ApiJudge:
    url = f"http://127.0.0.1:{server.server_port}/v1/"
    return ApiJudge("a-model", url, key_variable="JUDGE_KEY", **{"backoff": 0.01, **options})


def test_verdicts_come_in_order(server):
    verdicts = judge(server).judge(["p"] * 6, ["no!", "yes"] * 3)
    assert verdicts == [Verdict.REFUSED, Verdict.COMPLIED] * 3
    path, key, body = server.requests[0]
    assert (path, key) == ("/v1/chat/completions", f"Bearer {SECRET}")
    assert body["temperature"] == 0
    assert "verdict" in body["messages"][0]["content"]


def test_requests_run_side_by_side(server):
    server.barrier = threading.Barrier(4)  # each waits for the other three
    assert len(judge(server, concurrency=4).judge(["p"] * 4, list("abcd"))) == 4


@pytest.mark.parametrize("failures", [[429], [503, 500], [429, 502, 503], ["cut"]])
def test_passing_failures_are_tried_again(server, failures):
    server.failures = list(failures)
    assert judge(server, concurrency=1).judge(["p"], ["no!"]) == [Verdict.REFUSED]
    assert len(server.requests) == len(failures) + 1


def test_lasting_failures_are_unjudged_and_never_tell_the_key(server, capfd):
    server.failures = [401]
    first = judge(server)
    assert first.judge(["p"], ["no!"]) == [Verdict.UNJUDGED]
    assert "answered 401" in first.failures[0]
    server.failures = [503] * 3
    second = judge(server, retries=2)
    assert second.judge(["p"], ["no!"]) == [Verdict.UNJUDGED]
    written = capfd.readouterr()
    assert SECRET not in "".join(first.failures + second.failures) + written.out + written.err


def test_a_redirection_does_not_take_the_key_along(server):
    server.failures, server.elsewhere = [302], f"http://localhost:{server.server_port}/elsewhere"
    assert judge(server).judge(["p"], ["no!"]) == [Verdict.UNJUDGED]
    (_, first, _), (path, second, _) = server.requests
    assert (first, path, second) == (f"Bearer {SECRET}", "/elsewhere", None)


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), ("86400", 120.0), ("-1", 0.0), ("Wed, 21 Oct", 3.0)])
def test_no_server_is_waited_for_forever(text, seconds):
    assert _seconds(text, default=3.0) == seconds


def test_a_reply_that_is_no_object_is_unjudged(server):
    server.reply = ["refused"]
    assert judge(server).judge(["p"], ["a"]) == [Verdict.UNJUDGED]


def test_an_endpoint_that_is_not_there_is_unjudged():
    missing = ApiJudge("m", "http://127.0.0.1:9", retries=1, backoff=0.01)
    assert missing.judge(["p"], ["a"]) == [Verdict.UNJUDGED]
    assert "could not be reached" in missing.failures[0]


@pytest.mark.parametrize("text", ["no verdict", '{"verdict": "maybe"}', '{"verdict": ', "[]"])
def test_unreadable_replies_are_unjudged(server, text):
    server.text = text
    assert judge(server).judge(["p"], ["a"]) == [Verdict.UNJUDGED]


def test_verdicts_are_kept_on_disk_and_failures_are_not(server, tmp_path):
    server.failures = [400]
    assert judge(server, cache=tmp_path, concurrency=1).judge(["p", "q"], ["no!", "yes"])[1] is Verdict.COMPLIED
    before = len(server.requests)
    assert judge(server, cache=tmp_path).judge(["q"], ["yes"]) == [Verdict.COMPLIED]
    assert len(server.requests) == before
    assert judge(server, cache=tmp_path).judge(["p"], ["no!"]) == [Verdict.REFUSED]
    assert len(server.requests) == before + 1
    assert SECRET not in "".join(path.read_text() for path in tmp_path.iterdir())


def test_the_cap_stops_paying(server):
    capped = judge(server, concurrency=1, prices=Prices(1000.0, 1000.0), max_cost=0.2)  # 0.11 $ a request
    verdicts = capped.judge(["p"] * 4, ["no!"] * 4)
    assert verdicts == [Verdict.REFUSED] * 2 + [Verdict.UNJUDGED] * 2
    assert capped.cost == pytest.approx(0.22)
    assert "Raise the cap" in capped.failures[0]
    with pytest.raises(ValueError, match="needs prices"):
        judge(server, max_cost=1.0)


def test_an_endpoint_that_does_not_tell_its_usage_cannot_pass_the_cap(server):
    server.tells_usage = False
    capped = judge(server, concurrency=1, prices=Prices(0.0, 1000.0), max_cost=0.1)  # 64 tokens: 0.064 $ at most
    assert capped.judge(["p"] * 3, ["no!"] * 3) == [Verdict.REFUSED] * 2 + [Verdict.UNJUDGED]
    assert capped.cost == pytest.approx(0.128)


ODD = [None, "100", -5, -1e300, 1e300, 10**400, float("nan"), True, [], {"a": 1}]


@pytest.mark.parametrize("usage", [*ODD, *({"prompt_tokens": odd, "completion_tokens": odd} for odd in ODD)])
def test_odd_usage_is_reckoned_at_the_most_it_can_be(server, usage):
    content = '{"verdict": "refused"}'
    server.reply = {"choices": [{"message": {"content": content}}], "usage": usage}
    paid = judge(server, prices=Prices(0.0, 1000.0), max_cost=10.0)
    assert paid.judge(["p"], ["no!"]) == [Verdict.REFUSED]
    assert paid.cost == pytest.approx(0.064)


def test_deep_replies_are_unjudged(server, monkeypatch):
    server.text = '{"verdict": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert judge(server).judge(["p"], ["a"]) == [Verdict.UNJUDGED]
    monkeypatch.setattr(json, "dumps", lambda value: "[" * 100_000 if isinstance(value, list) else "{}")
    server.reply = [1]
    assert judge(server).judge(["p"], ["a"]) == [Verdict.UNJUDGED]


@pytest.mark.parametrize("options", [{"max_cost": -1.0}, {"max_cost": float("nan")}, {"concurrency": 0}])
def test_costs_that_are_none_are_refused(options):
    with pytest.raises(ValueError, match="at least"):
        ApiJudge("m", **{"prices": Prices(), **options})


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_prices_that_are_none_are_refused(price):
    with pytest.raises(ValueError, match="at least 0"):
        Prices(0.0, price)


@pytest.mark.parametrize("url", ["api.openai.com/v1", "file:///etc/passwd", "", "ftp://x"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="none of a web server"):
        ApiJudge("m", url)


def measured(judge, count=30):
    return judge_answers(judge, [Case("p")] * count, [Answer(f"answer {i}") for i in range(count)])


@pytest.mark.parametrize(("code", "says"), [(401, "valid key in .JUDGE_KEY"), (403, "may not use"), (404, "address")])
def test_a_judge_that_can_judge_nothing_is_an_error(server, code, says):
    server.failures = [code] * 100
    with pytest.raises(ConnectionError, match=f"could judge no answer: the endpoint answered {code}.*{says}"):
        measured(judge(server, concurrency=2))
    assert len(server.requests) <= 5  # and is not asked again and again


def test_a_refused_connection_is_an_error():
    missing = ApiJudge("m", "http://127.0.0.1:9", retries=0, backoff=0.0, concurrency=2)
    with pytest.raises(ConnectionError, match=r"could not be reached .*127\.0\.0\.1:9"):
        measured(missing)


def test_a_judge_that_fails_for_some_is_none(server):
    server.failures = [None, *[400] * 29]
    report = measured(judge(server, concurrency=1))
    assert (report.unjudged, report.asr.not_measurable) == ((29, 30), "97 % unjudged")


def test_a_key_that_cannot_be_sent_is_not_shown(server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", f"{SECRET}\r\nX: y")
    with pytest.raises(ConnectionError, match="is no key") as raised:
        measured(judge(server))
    assert SECRET not in str(raised.value)


def test_a_damaged_verdict_is_asked_for_again(server, tmp_path):
    judge(server, cache=tmp_path).judge(["p"], ["no!"])
    next(tmp_path.iterdir()).write_text('{"verd')
    assert judge(server, cache=tmp_path).judge(["p"], ["no!"]) == [Verdict.REFUSED]
