"""captioning/enrich.py: the rule, a chat model, a server that fails in every way, and kills."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT, TWO_PROCESSES, error_of, run_script, start_script, wait_for
from test_enrichment import TABLE

from captioning import enrich, language_models
from core.runs.run import read_record
from hand1000.enrichment import enrich_by_rule
from hand1000.gesture_files import GestureFiles
from hand1000.gestures import PHRASES
from synthetic_hands import tiny_captioners

PHRASE = PHRASES["call"]


def write_captions(folder: Path, captions: list[str], stem: str = "call_BLIP2") -> None:
    (folder / f"{stem}.txt").write_text("".join(f"{caption}\n" for caption in captions), encoding="utf-8")
    names = "".join(f"{number:04}.jpg\n" for number in range(len(captions)))
    (folder / f"{stem}_file_name.txt").write_text(names)


def enriched_lines(folder: Path) -> list[str]:
    return (folder / "call_BLIP2_modified.txt").read_text(encoding="utf-8").splitlines()


def test_enrich_by_rule_script(tmp_path, capsys):
    captions = [caption for caption, _ in TABLE]
    write_captions(tmp_path, captions)
    arguments = ["--gesture", "call", "--data_root", str(tmp_path), "--backend", "rule"]
    enrich.main(arguments)
    assert enriched_lines(tmp_path) == [expected.replace("@", PHRASE) for _, expected in TABLE]
    output = capsys.readouterr().out
    assert f"{len(TABLE)} captions with '{PHRASE}'" in output and f"{len(TABLE)} by the rule" in output
    assert read_record(tmp_path / "call_BLIP2_modified.json").facts["by the rule"] == len(TABLE)
    enrich.main(arguments)
    assert "already finished" in capsys.readouterr().out
    message = error_of(enrich.main, [*arguments, "--phrase", "calling hand gesture"], capsys)
    assert "holds a finished enrichment of other settings (phrase was" in message
    with open(tmp_path / "call_BLIP2_modified.txt", "a") as file:
        file.write("one line more\n")
    assert "call_BLIP2_modified.txt: changed or lost since it was made" in error_of(enrich.main, arguments, capsys)
    write_captions(tmp_path, captions[:-1])
    assert f"lines was {len(TABLE)}, is now {len(TABLE) - 1}" in error_of(enrich.main, arguments, capsys)
    (tmp_path / "call_BLIP2_modified.json").unlink()
    assert "exists already, made otherwise" in error_of(enrich.main, arguments, capsys)

    write_captions(tmp_path, captions[:1], stem="call_test_BLIP2")
    enrich.main(["--gesture", "call_test", *arguments[2:]])
    assert f"1 caption with '{PHRASE}'" in capsys.readouterr().out


class Server:
    """An OpenAI-compatible server on loopback; `behave(caption, attempt, messages)` gives what it does.

    A string is the answer; an int that HTTP status; "DROP" hangs up; "HTML" is a web page; a float waits so long first;
    "DRIP" sends a byte now and then, "HEADER" a header that never ends.
    """

    def __init__(self, behave):
        self.requests, self.behave, self.lock = [], behave, threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                caption = re.search(
                    r"The original sentence is: '(.*?)\.' The final", body["messages"][0]["content"]
                ).group(1)
                with server.lock:
                    attempt = sum(caption == seen for seen, *_ in server.requests)
                    server.requests.append((caption, self.path, self.headers.get("Authorization"), body))
                does = server.behave(caption, attempt, body["messages"])
                if isinstance(does, float):
                    time.sleep(does)
                    does = enrich_by_rule(caption, PHRASE)
                if does == "DROP":
                    self.connection.close()
                    return
                if does in ("DRIP", "HEADER"):
                    self.drip(does == "HEADER")
                    return
                status = does if isinstance(does, int) else 200
                page = does if isinstance(does, str) and does != "HTML" else None
                content = {"choices": [{"index": 0, "message": {"role": "assistant", "content": page}}]}
                text = "<html>hello</html>" if page is None else json.dumps(content)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def drip(self, in_header: bool) -> None:
                self.send_response(200)
                if not in_header:
                    self.send_header("Content-Length", "1000000")
                    self.end_headers()
                for number in range(200):
                    self.flush_headers()
                    self.wfile.write(f"X-{number}: a\r\n".encode() if in_header else b" ")
                    self.wfile.flush()
                    time.sleep(0.05)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # clients that hang up
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


def openai_arguments(folder: Path, server: Server, *more) -> list[str]:
    options = ["--gesture", "call", "--data_root", folder, "--backend", "openai", "--api_base", server.url, *more]
    return list(map(str, options))


def test_enrich_through_a_server_that_fails_in_every_way(tmp_path, capsys, monkeypatch):
    def behave(caption, attempt, messages):
        right = enrich_by_rule(caption, PHRASE)
        match int(caption.rpartition(" ")[2]):
            case 1 if attempt < 2:
                return 500
            case 2 if attempt == 0:
                return "DROP"
            case 3:
                return 0.3  # late: the order of answers must not change
            case 4 if len(messages) == 1:
                return f'"{right}"'
            case 5:
                return "I can't help with that."
            case 6 if attempt == 0:
                return 429
            case 7 if len(messages) < 5:
                return caption
            case 8 if len(messages) == 1:
                return f"{right} \ud83d"  # half a surrogate pair
        return right

    captions = [f"a man in room {number}" for number in range(12)]
    write_captions(tmp_path, captions)
    monkeypatch.setattr(language_models, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "hub secret")
    with Server(behave) as server:
        enrich.main(openai_arguments(tmp_path, server, "--model", "tiny", "--batch_size", "4"))
        requests = server.requests
    assert enriched_lines(tmp_path) == [f"{caption} {PHRASE}" for caption in captions]
    assert "9 right at once, 2 right after a retry, 1 by the rule; 100.0%" in capsys.readouterr().out
    assert {path for _, path, *_ in requests} == {"/v1/chat/completions"}
    assert {key for *_, key, _ in requests} == {"Bearer secret"}
    assert all(body["model"] == "tiny" and body["temperature"] == 0 for *_, body in requests)
    retry = [body["messages"] for caption, *_, body in requests if caption.endswith("room 4")][1]
    assert retry[1]["role"] == "assistant" and "put in quotes" in retry[2]["content"]
    assert "secret" not in (tmp_path / "call_BLIP2_modified.json").read_text()


@pytest.mark.parametrize(
    "does, words",
    [
        (500, "no answer after 5 attempts"),
        ("HTML", "does not answer like an OpenAI server"),
        (404, "refuses the request"),
        (1.5, "no answer after 5 attempts"),
        ("DRIP", "no answer after 5 attempts (no whole answer in 1 seconds)"),
        ("HEADER", "no answer after 5 attempts (no whole answer in 1 seconds)"),
    ],
)
def test_server_errors_keep_what_is_done(does, words, tmp_path, capsys, monkeypatch):
    captions = [f"a man in room {number}" for number in range(4)]
    write_captions(tmp_path, captions)
    monkeypatch.setattr(language_models, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("HF_TOKEN", "hub secret")

    def behave(caption, *_):
        return does if caption.endswith("2") else enrich_by_rule(caption, PHRASE)

    with Server(behave) as server:
        arguments = openai_arguments(tmp_path, server, "--batch_size", "1", "--timeout", "1")
        message = error_of(enrich.main, arguments, capsys)
        assert words in message and server.url in message
        assert not (tmp_path / "call_BLIP2_modified.txt").exists()
        server.behave, asked = lambda caption, *_: enrich_by_rule(caption, PHRASE), len(server.requests)
        enrich.main(arguments)
        assert [caption for caption, *_ in server.requests[asked:]] == captions[2:]
        assert {key for *_, key, _ in server.requests} == {"Bearer none"}  # never the hub's token
    assert enriched_lines(tmp_path) == [f"{caption} {PHRASE}" for caption in captions]
    for path in tmp_path.glob("call_BLIP2_modified*"):
        path.unlink()
    assert "no answer after 5 attempts" in error_of(enrich.main, arguments, capsys)  # nobody listens any more


def test_long_answers_and_captions_cost_no_minutes(tmp_path, monkeypatch):
    """Ten megabytes of a server, and captions that a grammar may read in many ways."""
    captions = ["a man", f"a man {'one ' * 300}hand", f"{'raised open ' * 150}", "peace sign " * 200]
    write_captions(tmp_path, [caption.strip() for caption in captions])
    started = time.monotonic()
    with Server(lambda *_: "one " * 2_500_000) as server:
        enrich.main(openai_arguments(tmp_path, server, "--retries", 0))
    assert time.monotonic() - started < 20
    assert enriched_lines(tmp_path)[0] == f"a man {PHRASE}"


def test_the_key_is_in_no_message(tmp_path, capsys, monkeypatch):
    write_captions(tmp_path, ["a man"])
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret\n")
    with Server(lambda *_: 404) as server:
        message = error_of(enrich.main, openai_arguments(tmp_path, server), capsys)
        assert message.startswith("OPENAI_API_KEY: holds a newline") and not server.requests
        monkeypatch.setenv("OPENAI_API_KEY", "127.0.0.1")  # which the client's own message holds
        message = error_of(enrich.main, openai_arguments(tmp_path, server), capsys)
    assert "refuses the request" in message and "//the key:" in message


def test_enrich_with_a_chat_model(tmp_path, capsys, monkeypatch, one_thread):
    """A random Llama is never right, so the rule repairs everything; what it was asked and how is real."""
    monkeypatch.setattr(language_models, "MAX_NEW_TOKENS", 24)
    captions = ["a man in a red shirt", "a woman with a long green coat giving the peace sign", "a boy"]
    write_captions(tmp_path, captions)
    llama = tiny_captioners.save_llama(tmp_path / "llama")
    ask = language_models.ask_transformers(str(llama))
    chats = [[{"role": "user", "content": caption}] for caption in captions]
    assert ask(chats) == [ask([chat])[0] for chat in chats]  # padding changes nothing
    arguments = ["--gesture", "call", "--data_root", str(tmp_path), "--model", str(llama), "--retries", "1"]
    enrich.main(arguments)
    assert enriched_lines(tmp_path) == [enrich_by_rule(caption, PHRASE) for caption in captions]
    assert "0 right at once, 0 right after a retry, 3 by the rule" in capsys.readouterr().out


def test_enrich_mistakes(tmp_path, capsys):
    arguments = ["--gesture", "call", "--data_root", tmp_path, "--backend", "rule"]
    message = error_of(enrich.main, arguments, capsys)
    assert message.endswith("call_BLIP2_file_name.txt: no such file; a script of captioning/ makes it from the photos")
    write_captions(tmp_path, ["a man", "a woman"])
    (tmp_path / "call_BLIP2.txt").write_text("a man\n")
    message = error_of(enrich.main, arguments, capsys)
    assert "call_BLIP2_file_name.txt has 2 lines but" in message and "call_BLIP2.txt has 1" in message
    write_captions(tmp_path, ["a man", "a woman"], stem="wave_BLIP2")
    arguments[1] = "wave"
    message = error_of(enrich.main, arguments, capsys)
    assert "no phrase is known for the gesture 'wave'; pass --phrase (known: call, " in message
    message = error_of(enrich.main, [*arguments[:-1], "openai", "--phrase", "x", "--api_base", "host:1/v1"], capsys)
    assert "--api_base host:1/v1: an address begins with http:// or https://" in message
    done = run_script("captioning/enrich.py", *arguments, "--phrase", "waving", launcher=TWO_PROCESSES)
    assert done.returncode != 0 and "enrichment is the work of one process" in done.stderr
    message = error_of(enrich.main, [*arguments[:-1], "transformers", "--phrase", "waving", "--model", "none"], capsys)
    assert "none: no such folder, and not a hub id" in message


def test_enrich_killed(tmp_path):
    captions = [f"a man in room {number}" for number in range(30)]
    write_captions(tmp_path, captions)
    with Server(lambda caption, *_: 0.05) as server:
        arguments = ["captioning/enrich.py", *openai_arguments(tmp_path, server, "--batch_size", "2")]
        process, journal = start_script(*arguments), tmp_path / ".call_BLIP2_modified.journal.jsonl"
        wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 7, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = journal.read_bytes().count(b"\n")
        assert run_script(*arguments).returncode == 0
        asked = [caption for caption, *_ in server.requests]
    assert enriched_lines(tmp_path) == [f"{caption} {PHRASE}" for caption in captions]
    assert set(asked[-(30 - done) :]) == set(captions[done:])  # what was done is not asked again


def heed_ctrl_c() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_at_once_though_the_server_is_silent(tmp_path):
    write_captions(tmp_path, [f"a man in room {number}" for number in range(8)])
    with Server(lambda *_: 30.0) as server:
        arguments = openai_arguments(tmp_path, server, "--batch_size", "4")
        command = [sys.executable, "captioning/enrich.py", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=ROOT, preexec_fn=heed_ctrl_c, **pipes)
        wait_for(lambda: len(server.requests) == 4, process)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - started < 10 and process.returncode == 130 and "Traceback" not in errors, errors


def test_a_removed_record_takes_its_journal_with_it(tmp_path, capsys):
    """The entries of a journal without a record may have been made with other settings."""
    captions = ["a man", "a woman", "a boy"]
    write_captions(tmp_path, captions)
    with Server(lambda caption, *_: 404 if caption == "a boy" else f"{caption} {PHRASE}") as server:
        arguments = openai_arguments(tmp_path, server, "--batch_size", "1")
        error_of(enrich.main, arguments, capsys)
    rule = [*arguments, "--backend", "rule", "--phrase", "calling hand gesture"]
    assert "holds an unfinished enrichment of other settings (phrase was " in error_of(enrich.main, rule, capsys)
    (tmp_path / "call_BLIP2_modified.json").unlink()
    enrich.main(rule)
    assert enriched_lines(tmp_path) == [f"{caption} calling hand gesture" for caption in captions]
    assert GestureFiles(tmp_path, "call").enriched.is_file()
