"""Selection, captions, enrichment and their evaluation: from photos to the lists that training reads."""

import json
import re
import shutil
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TWO_PROCESSES, error_of, files_under, run_script, start_script
from hand1000.journal import journal_path
from PIL import Image
from safetensors.torch import load_file, save_file

import dataset_evaluate
import select_images
from captioning import blip2, enrich, paligemma, vitgpt2
from core.runs.photos import load_photo
from hand1000.enrichment import enrich_by_rule, enrichment_prompt, problems, share_kept
from hand1000.gestures import PHRASES
from synthetic_hands import tiny_captioners

PHRASE = PHRASES["call"]
HAGRID = ROOT.parent / "shared" / "data" / "hagrid-gestures"

# Captions and what the rule makes of them; @ stands for the phrase.
TABLE = [
    ("a girl in a green shirt and glasses", "a girl in a green shirt and glasses @"),
    ("a man with a beard sitting on a couch", "a man with a beard sitting on a couch @"),
    ("a woman talking on a cell phone in a kitchen", "a woman talking on a cell phone in a kitchen @"),
    ("a young boy wearing a red hat and a blue jacket", "a young boy wearing a red hat and a blue jacket @"),
    ("two women standing in front of a window", "two women standing in front of a window @"),
    ("a girl in a green shirt and glasses giving the peace sign", "a girl in a green shirt and glasses @"),
    ("a man in a suit giving a thumbs up", "a man in a suit @"),
    ("a woman in a black dress showing the ok sign", "a woman in a black dress @"),
    ("a boy in a striped shirt making a fist", "a boy in a striped shirt @"),
    ("a man sitting at a desk doing the rock and roll sign", "a man sitting at a desk @"),
    ("a woman in a room raising her hand", "a woman in a room @"),
    ("a man holding up two fingers", "a man @"),
    ("a person with three fingers up", "a person @"),
    ("a man giving the peace sign in front of a mirror", "a man @ in front of a mirror"),
    ("a woman holding up two fingers while sitting on a bed", "a woman @ while sitting on a bed"),
    ("a boy showing thumbs up to the camera and smiling", "a boy @ to the camera and smiling"),
    ("a man pointing at the camera in a living room", "a man @ in a living room"),
    ("a girl making a heart with her hands near a tree", "a girl @ near a tree"),
    ("a man in glasses gives the thumbs up and laughs", "a man in glasses @ and laughs"),
    ("a woman raises her hand in a classroom", "a woman @ in a classroom"),
    ("a man pointing at the camera", "a man @"),
    ("a woman is pointing up at the ceiling", "a woman is @"),
    ("a man with his finger on his lips", "a man @"),
    ("a girl waving at the camera", "a girl @"),
    ("a man making a stop gesture with his hand", "a man @"),
    ("a woman throwing up a peace sign", "a woman @"),
    ("a boy flashing a victory sign at a party", "a boy @ at a party"),
    ("a man with his thumb up", "a man @"),
    ("a man with two thumbs up", "a man @"),
    ("a woman with an open palm", "a woman @"),
    ("a woman making a phone call gesture", "a woman @"),
    ("a man making a phone call hand gesture with his hand", "a man @"),
    ("a man doing the call me sign", "a man @"),
    ("a girl making phone call gesture in a kitchen", "a girl @ in a kitchen"),
    ("a man showing a phone gesture next to a lamp", "a man @ next to a lamp"),
    ("a girl in a hat making phone call hand gesture", "a girl in a hat @"),
    ("a man making phone call hand gesture and making phone call hand gesture", "a man @"),
    ("making phone call hand gesture, a man in a red shirt making phone call hand gesture", "@, a man in a red shirt"),
    ("a man giving the peace sign and making phone call hand gesture", "a man @"),
    ("a man making phone call hand gesture and giving a thumbs up", "a man @"),
    ("a boy giving thumbs up and showing a peace sign", "a boy @"),
    ("a man holding up one finger and pointing at the camera", "a man @"),
    ("A man giving the peace sign.", "A man @."),
    ("A woman in a yellow coat.", "A woman in a yellow coat @."),
    ("A MAN GIVING THE PEACE SIGN", "A MAN @"),
    ("a man, smiling, gives a thumbs-up!", "a man, smiling, @!"),
    ("Is this a man with a thumb up?", "Is this a man @?"),
    ("a woman with a beard... and glasses", "a woman with a beard... and glasses @"),
    ("a man in a room;", "a man in a room @"),
    ("ein Mädchen mit grüner Jacke", "ein Mädchen mit grüner Jacke @"),
    ("una niña con gafas, señal de paz", "una niña con gafas, señal de paz @"),
    ("un café à côté d'une femme giving the peace sign", "un café à côté d'une femme @"),
    ("一个女孩 holding up two fingers", "一个女孩 @"),
    ("a man next to a palm tree", "a man next to a palm tree @"),
    ("a stop sign on a street corner", "a stop sign on a street corner @"),
    ("a woman wearing a peace sign necklace", "a woman wearing a peace sign necklace @"),
    ("two people holding hands on a beach", "two people holding hands on a beach @"),
    ("a man holding a phone to his ear", "a man holding a phone to his ear @"),
    ("a close up of a ring on a finger", "a close up of a ring on a finger @"),
    ("a woman with her hands in her pockets", "a woman with her hands in her pockets @"),
    ("a man playing rock music on stage", "a man playing rock music on stage @"),
    ("thumbs up", "@"),
    ("a close up of a person's hand with a peace sign", "a close up of a person's hand @"),
    ("a man in a blue shirt with his hand up in the air", "a man in a blue shirt @"),
    ("a woman making a hand gesture", "a woman @"),
    ("a smiling girl hand gesture", "a smiling girl @"),
    ("two young women hand gestures", "two young women @"),
    ("a man and woman hand signal", "a man and woman @"),
    ("a woman wearing a red scarf hand gesture", "a woman wearing a red scarf @"),
    ("a picture of a man's hand sign", "a picture of a man's @"),
    ("a beach with waves in the background", "a beach with waves in the background @"),
    ("a man waving a flag in a stadium", "a man waving a flag in a stadium @"),
    ("a boy pointing his finger at the camera", "a boy @"),
    ("a teacher pointing to a whiteboard", "a teacher @"),
    ("a girl waving goodbye in front of a house", "a girl @ in front of a house"),
    ("a boy in a t-shirt with a peace sign on it", "a boy in a t-shirt with a peace sign on it @"),
    ("a girl in a peace sign sweatshirt", "a girl in a peace sign sweatshirt @"),
    ("a woman holding a stop sign", "a woman holding a stop sign @"),
    ("a woman with a ring on her middle finger", "a woman with a ring on her middle finger @"),
    ("a man putting his hands together in the kitchen sink", "a man putting his hands together in the kitchen sink @"),
    ("two people giving each other a high five in an office", "two people @ in an office"),
    ("a man giving the peace sign (and smiling)", "a man @ (and smiling)"),
    ("a man (giving a thumbs up) in a car", "a man (@) in a car"),
    ("two girls making a v with their fingers", "two girls @"),
    ("a man making a gun with her hand", "a man @"),
    ("a girl making a heart shape with her hands", "a girl @"),
    ("a man making an o with his fingers", "a man @"),
    ("a woman with her hand in the shape of a heart", "a woman @"),
    ("a hand showing the number two", "a hand @"),
    ("a boy holding up the number four", "a boy @"),
    ("a hand with four fingers", "a hand @"),
    ("a man showing his two fingers", "a man @"),
    ("a boy holding up three of his fingers", "a boy @"),
    ("a girl doing the 'ok' sign", "a girl @"),
    ('a girl doing the "peace" sign', "a girl @"),
    ("a man giving thumbs - up", "a man @"),
    ("a woman making a sign of victory", "a woman @"),
    ("a girl doing the shh sign", "a girl @"),
    ("a man doing the vulcan salute", "a man @"),
    ("a man giving an okay", "a man @"),
    ("a woman with a raised hand", "a woman @"),
    ("a woman with her palm facing the camera", "a woman @"),
    ("a man showing his open hand", "a man @"),
    ("a boy with his finger in the air", "a boy @"),
    ("a man with his fingers spread", "a man @"),
    ("a man making a time out", "a man @"),
    ("a man making a phone call with his hand", "a man @"),
    ("a woman holding his hand like a phone", "a woman @"),
    ("two women with with a fist, with his hand up", "two women with @"),
    ("a microwave in a kitchen", "a microwave in a kitchen @"),
    ("a book on a table", "a book on a table @"),
    ("a man making ok sign hand gesture in a room", "a man @ in a room"),
]


# Enrichment


@pytest.mark.parametrize("phrase", PHRASES.values(), ids=PHRASES)
def test_the_rule_makes_every_caption_right(phrase):
    for caption, expected in TABLE:
        caption = caption.replace(PHRASE, phrase)
        enriched = enrich_by_rule(caption, phrase)
        assert enriched == expected.replace("@", phrase)
        assert problems(enriched, caption, phrase) == []
        assert enrich_by_rule(enriched, phrase) == enriched


def test_the_table_is_varied():
    assert len(TABLE) >= 60
    assert sum(expected.endswith(" @") and expected == f"{caption} @" for caption, expected in TABLE) >= 10


@pytest.mark.parametrize(
    "answer, wrong",
    [
        ("a man in a red shirt @", None),
        ("a man @ in a red shirt", None),
        ("A man in a red shirt @.", None),
        ("a man in a red shirt", "0 times"),
        ("a man in a red shirt making a phone call gesture", "0 times"),
        ("a man in a red shirt @ and @", "2 times"),
        ("a man in a red shirt giving the peace sign @", "also names the gesture 'giving the peace sign'"),
        ("a man in a red shirt holding up two fingers, @", "also names the gesture 'holding up two fingers"),
        ("Sure! a man in a red shirt @", "explanation"),
        ("Here is the modified sentence: a man in a red shirt @", "explanation"),
        ("The final sentence is a man in a red shirt @", "explanation"),
        ('"a man in a red shirt @"', "quotes"),
        ("**a man in a red shirt @**", "quotes"),
        ("a man in a red shirt @ (I replaced the wrong gesture by the right one, as asked.)", "text of its own"),
        ("a man in a red shirt @\nI hope this helps!", "more than one line"),
        ("a person @", "leaves out much"),
        ("a man in a blue shirt @", "leaves out much"),
        ("", "0 times"),
        ('a man in a red shirt "@"', "quotes"),
        ("a man in a red shirt **@** now", "quotes"),
        ("a man in a red shirt <b>@</b>", "quotes"),
        ("Modified sentence: a man in a red shirt @", "explanation"),
        ("- a man in a red shirt @", "explanation"),
        ("I'm sorry, a man in a red shirt @", "explanation"),
        ("a man in a red shirt @s", "0 times"),
        ("a man in a red shirt not @", "text of its own"),
        ("a smiling old man in a red shirt @", "text of its own"),
        ("a man in a red shirt @ with two fingers", "also names the gesture 'with two fingers'"),
        ("a man in a red\u2028shirt @", "odd blanks"),
        ("a man in a red shirt\r@", "odd blanks"),
    ],
)
def test_answers_are_checked(answer, wrong):
    found = problems(answer.replace("@", PHRASE), "a man in a red shirt giving the peace sign", PHRASE)
    assert found == [] if wrong is None else wrong in "; ".join(found)


def test_every_phrase_is_replaced_by_every_other():
    for old in PHRASES.values():
        for new in PHRASES.values():
            caption = f"a man {old} in a room"
            assert enrich_by_rule(caption, new) == f"a man {new} in a room"
            assert problems(f"a man {new} in a room", caption, new) == []
    assert enrich_by_rule("a microwave in a room", "wave") == "a microwave in a room wave"


def test_share_kept_counts_content_words_without_gestures():
    caption = "a man in a red shirt giving the peace sign"  # man, red, shirt
    assert share_kept(f"a man in a red shirt {PHRASE}", caption, PHRASE) == 1
    assert share_kept(f"the MAN {PHRASE}", caption, PHRASE) == pytest.approx(1 / 3)
    assert share_kept(PHRASE, "thumbs up", PHRASE) == 1
    assert share_kept(f"a dog {PHRASE}", "a hand holding a phone", PHRASE) == 0  # the phrase's own words don't count


def test_the_prompt_is_the_released_one():
    prompt = enrichment_prompt("a girl in a green shirt and glasses giving the peace sign", PHRASE)
    assert prompt.startswith("The following sentence contains incorrect hand gesture information or lacks hand")
    assert "hand gesture information, modify it to 'making phone call hand gesture.' If it lacks" in prompt
    assert "The original sentence is: 'a girl in a green shirt and glasses giving the peace sign.' The final" in prompt


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
    assert json.loads((tmp_path / "call_BLIP2_modified.json").read_text())["by the rule"] == len(TABLE)
    enrich.main(arguments)
    assert "already finished" in capsys.readouterr().out
    message = error_of(enrich.main, [*arguments, "--phrase", "calling hand gesture"], capsys)
    assert "exists already, made with other settings (phrase was" in message
    with open(tmp_path / "call_BLIP2_modified.txt", "a") as file:
        file.write("one line more\n")
    assert "call_BLIP2_modified.txt: changed or lost since it was made" in error_of(enrich.main, arguments, capsys)
    write_captions(tmp_path, captions[:-1])
    assert f"lines was {len(TABLE)}, is now {len(TABLE) - 1}" in error_of(enrich.main, arguments, capsys)
    (tmp_path / "call_BLIP2_modified.json").unlink()
    assert "exists already, made otherwise" in error_of(enrich.main, arguments, capsys)

    write_captions(tmp_path, captions[:1], stem="call_test_BLIP2")
    enrich.main(["--gesture", "call_test", *arguments[2:]])
    assert f"1 captions with '{PHRASE}'" in capsys.readouterr().out


class Server:
    """An OpenAI-compatible server on loopback; `behave(caption, attempt, messages)` gives what it does.

    A string is the answer; an int that HTTP status; "DROP" hangs up; "HTML" is a web page; a float waits so long first.
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
                status = does if isinstance(does, int) else 200
                page = does if isinstance(does, str) and does != "HTML" else None
                content = {"choices": [{"index": 0, "message": {"role": "assistant", "content": page}}]}
                text = "<html>hello</html>" if page is None else json.dumps(content)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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
    monkeypatch.setattr(enrich, "FIRST_WAIT", 0.01)
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
    ],
)
def test_server_errors_keep_what_is_done(does, words, tmp_path, capsys, monkeypatch):
    captions = [f"a man in room {number}" for number in range(4)]
    write_captions(tmp_path, captions)
    monkeypatch.setattr(enrich, "FIRST_WAIT", 0.01)
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


def test_enrich_with_a_chat_model(tmp_path, capsys):
    """A random Llama is never right, so the rule mends all; what it was asked and how is real."""
    captions = ["a man in a red shirt", "a woman with a long green coat giving the peace sign", "a boy"]
    write_captions(tmp_path, captions)
    llama = tiny_captioners.save_llama(tmp_path / "llama")
    ask = enrich.ask_transformers(str(llama))
    chats = [[{"role": "user", "content": caption}] for caption in captions]
    assert ask(chats) == [ask([chat])[0] for chat in chats]  # padding changes nothing
    arguments = ["--gesture", "call", "--data_root", str(tmp_path), "--model", str(llama), "--retries", "1"]
    enrich.main(arguments)
    assert enriched_lines(tmp_path) == [enrich_by_rule(caption, PHRASE) for caption in captions]
    assert "0 right at once, 0 right after a retry, 3 by the rule" in capsys.readouterr().out


def test_enrich_mistakes(tmp_path, capsys):
    arguments = ["--gesture", "call", "--data_root", tmp_path, "--backend", "rule"]
    assert "call_BLIP2_file_name.txt: no such file" in error_of(enrich.main, arguments, capsys)
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
    assert done.returncode != 0 and "enrichment is one process's work" in done.stderr
    message = error_of(enrich.main, [*arguments[:-1], "transformers", "--phrase", "waving", "--model", "none"], capsys)
    assert "none: no such folder, and not a hub id" in message


# Selection


@pytest.fixture
def hagrid(tmp_path) -> Path:
    """A miniature HaGRID: 60 photos of 20 people, some of another label, and their annotations."""
    source = tmp_path / "hagrid"
    (source / "call").mkdir(parents=True)
    entries = {}
    for number in range(60):
        name = f"{number * 7919 % 10007:05}"
        (source / "call" / f"{name}.jpg").write_bytes(f"photo {number}".encode())
        (source / "call" / f"{name}.jpg").chmod(0o600)
        labels = ["peace"] if number % 10 == 0 else ["call", "no_gesture"]
        entries[name] = {"user_id": f"u{number % 20}", "labels": labels, "bboxes": [[0, 0, 1, 1]]}
    entries["unknown"] = {"user_id": "u0", "labels": ["call"], "bboxes": []}
    (source / "call.json").write_text(json.dumps(entries))
    return source


def select(hagrid: Path, root: Path, *more) -> dict:
    options = ["--source", hagrid, "--gesture", "call", "--num", 20, "--num_test", 15, "--data_root", root, *more]
    select_images.main(list(map(str, options)))
    return json.loads((root / "call_selection.json").read_text())


def test_selection(hagrid, tmp_path, capsys):
    root, annotations = tmp_path / "data", hagrid / "call.json"
    selection = select(hagrid, root, "--annotations", annotations)
    entries = json.loads(annotations.read_text())
    train, test = (sorted(path.name for path in (root / name).iterdir()) for name in ("call", "call_test"))
    assert (train, test) == (selection["train"], selection["test"]) and (len(train), len(test)) == (20, 15)
    people = [{entries[name[:5]]["user_id"] for name in names} for names in (train, test)]
    assert not people[0] & people[1]
    assert all("call" in entries[name[:5]]["labels"] for name in train + test)
    assert (root / "call" / train[0]).read_bytes() == (hagrid / "call" / train[0]).read_bytes()
    # The same choice on every machine: this list is the promise.
    assert train[:4] == EXPECTED_TRAIN and test[:4] == EXPECTED_TEST
    assert select(hagrid, tmp_path / "other", "--annotations", annotations, "--seed", "1")["train"] != train
    linked = select(hagrid, tmp_path / "linked", "--annotations", annotations, "--link")
    assert linked["train"] == train and (tmp_path / "linked" / "call" / train[0]).is_symlink()
    assert (hagrid / "call" / train[0]).stat().st_mode & 0o777 == 0o600  # of a source that is not ours

    # Again: finished. A folder lost on the way: made again. Another choice: refused.
    select(hagrid, root, "--annotations", annotations)
    assert "already finished, 20 photos to train on, 15 to test on" in capsys.readouterr().out
    (root / "call" / train[0]).rename(root / train[0])
    with pytest.raises(SystemExit):
        select(hagrid, root, "--annotations", annotations)
    assert "call: not the 20 photos that call_selection.json lists" in capsys.readouterr().err
    (root / train[0]).rename(root / "call" / train[0])
    shutil.rmtree(root / "call_test")
    select(hagrid, root, "--annotations", annotations)
    assert sorted(path.name for path in (root / "call_test").iterdir()) == test
    with pytest.raises(SystemExit):
        select(hagrid, root, "--annotations", annotations, "--seed", "1")
    assert "another choice was made here (seed was 0, is now 1)" in capsys.readouterr().err


EXPECTED_TRAIN = ["00356.jpg", "01501.jpg", "01578.jpg", "01934.jpg"]
EXPECTED_TEST = ["00789.jpg", "01068.jpg", "01145.jpg", "02444.jpg"]


def test_people_with_many_photos_find_their_side():
    people = {"a": "A", "b": "B", **{f"c{number}": "C" for number in range(10)}}
    for seed in range(10):
        train, test = select_images.choose(people, 2, 5, seed)
        assert train == ["a", "b"] and {people[name] for name in test} == {"C"}


def test_selection_killed_while_copying(hagrid, tmp_path):
    for number in range(3000):
        (hagrid / "call" / f"more{number}.jpg").write_bytes(b"photo" * 2000)
    arguments = ["select_images.py", "--source", hagrid, "--gesture", "call", "--num", 2000, "--num_test", 1000]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_script(*arguments, "--data_root", whole).returncode == 0
    process = start_script(*arguments, "--data_root", killed)
    wait_for(lambda: (killed / ".call.tmp").exists(), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "call_test").exists()
    assert run_script(*arguments, "--data_root", killed).returncode == 0
    assert files_under(whole) == files_under(killed)


def test_selection_mistakes(hagrid, tmp_path, capsys):
    def error(*more) -> str:
        options = ["--source", hagrid, "--gesture", "call", "--data_root", tmp_path / "data", *more]
        return error_of(select_images.main, options, capsys)

    message = error()
    assert "60 photos of 60 people can't give 1000 to train on and 1000 of others to test on; lower --num" in message
    assert "none.json: no such file" in error("--annotations", tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"00000": {"user": 1}}')
    assert "bad.json: not HaGRID's JSON" in error("--annotations", tmp_path / "bad.json")
    assert "gives the label 'fist' to none" in error(
        "--annotations", hagrid / "call.json", "--gesture", "fist", "--source", hagrid / "call"
    )
    assert not (tmp_path / "data").exists()
    (tmp_path / "data" / "call").mkdir(parents=True)
    assert "call: exists already, and no call_selection.json beside it" in error("--num", 10, "--num_test", 10)


def wait_for(condition, process: subprocess.Popen, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)


# Captions


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder of the captioners' and CLIP's real classes in miniature."""
    folder = tmp_path_factory.mktemp("captioners")
    for name in ("blip2", "paligemma", "vitgpt2", "clip"):
        getattr(tiny_captioners, f"save_{name}")(folder / name)
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    """Eleven pictures in call/, whose names do not sort as they were written."""
    rng = np.random.default_rng(0)
    (tmp_path / "call").mkdir()
    for number in range(11):
        pixels = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60 + number, 50)).save(tmp_path / "call" / f"{number * 7 % 11}.png")
    return tmp_path


CAPTIONERS = [(blip2, "BLIP2"), (paligemma, "PaliGemma"), (vitgpt2, "VitGpt2")]


@pytest.mark.parametrize("script, name", CAPTIONERS, ids=[name for _, name in CAPTIONERS])
def test_captions_in_the_order_of_file_names(script, name, photos, models, capsys):
    model = str(models / name.lower())
    arguments = ["--gesture", "call", "--data_root", str(photos), "--model", model, "--num_workers", "0"]
    script.main([*arguments, "--batch_size", "4"])
    names = (photos / f"call_{name}_file_name.txt").read_text().splitlines()
    captions = (photos / f"call_{name}.txt").read_text(encoding="utf-8").split("\n")
    assert names == sorted(path.name for path in (photos / "call").iterdir())
    assert captions.pop() == "" and len(captions) == 11
    alone = script.load(model, torch.device("cpu"))
    for photo, caption in zip(names, captions):
        (text,) = alone([load_photo(photos / "call" / photo)])
        assert caption == (" ".join(text.split()) or "a photo")
    assert len(set(captions)) > 1 or name == "PaliGemma"  # whose random copy writes newlines only
    assert f"call_{name}.txt: 11 captions" in capsys.readouterr().out
    script.main(arguments)
    assert "already finished, 11 captions" in capsys.readouterr().out
    message = error_of(script.main, [*arguments, "--limit", "3"], capsys)
    assert "exists already, made with other settings (photos was 11, is now 3" in message
    (photos / f"call_{name}_file_name.txt").unlink()
    assert "_file_name.txt: changed or lost since it was made" in error_of(script.main, arguments, capsys)
    for path in photos.glob("call_*"):
        path.unlink()
    (photos / f"call_{name}_file_name.txt").write_text("my own list\n")
    assert "_file_name.txt: exists already, made otherwise" in error_of(script.main, arguments, capsys)


def test_paligemma_sees_the_released_prompt(models):
    from transformers import PaliGemmaProcessor

    processor = PaliGemmaProcessor.from_pretrained(models / "paligemma")
    picture = Image.new("RGB", (32, 32))
    ours, released = (processor(text=text, images=picture).input_ids for text in (paligemma.PROMPT, "caption"))
    assert list(ours[0]) == list(released[0])


def test_captions_killed_and_by_two_processes(photos, models):
    arguments = ["captioning/vitgpt2.py", "--gesture", "call", "--model", models / "vitgpt2", "--num_workers", "0"]
    arguments += ["--batch_size", "2", "--data_root"]
    for number in range(11, 400):
        shutil.copy(photos / "call" / f"{number % 11}.png", photos / "call" / f"{number}.png")
    whole, killed, two = (photos / name for name in ("whole", "killed", "two"))
    for folder in (whole, killed, two):
        folder.mkdir()
        (folder / "call").symlink_to(photos / "call")
    assert run_script(*arguments, whole).returncode == 0
    done = run_script(*arguments, two, launcher=TWO_PROCESSES)
    assert done.returncode == 0, done.stderr
    process, journal = start_script(*arguments, killed), journal_path(killed / "call_VitGpt2.txt")
    wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 20, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "call_VitGpt2.txt").exists()
    with open(journal, "ab") as file:
        file.write(b'{"photo": "torn')  # as a kill in the middle of a write leaves it
    done = run_script("-m", "captioning.vitgpt2", *arguments[1:], killed)
    assert done.returncode == 0 and not journal.exists(), done.stderr
    for folder in (killed, two):
        for name in ("call_VitGpt2.txt", "call_VitGpt2_file_name.txt"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_enrich_killed(tmp_path):
    captions = [f"a man in room {number}" for number in range(30)]
    write_captions(tmp_path, captions)
    with Server(lambda caption, *_: 0.05) as server:
        arguments = ["captioning/enrich.py", *openai_arguments(tmp_path, server, "--batch_size", "2")]
        process, journal = start_script(*arguments), journal_path(tmp_path / "call_BLIP2_modified.txt")
        wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 8, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = journal.read_bytes().count(b"\n") - 1
        assert run_script(*arguments).returncode == 0
        asked = [caption for caption, *_ in server.requests]
    assert enriched_lines(tmp_path) == [f"{caption} {PHRASE}" for caption in captions]
    assert set(asked[-(30 - done) :]) == set(captions[done:])  # what was done is not asked again


def test_captioner_mistakes(photos, models, capsys, monkeypatch):
    def error(*more) -> str:
        arguments = ["--gesture", "call", "--data_root", photos, "--num_workers", 0, "--model", *more]
        return error_of(vitgpt2.main, arguments, capsys)

    assert "nowhere: no such folder, and not a hub id" in error("nowhere")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # in this process the hub client has read it already
    options = ["--gesture", "call", "--data_root", photos, "--num_workers", 0, "--model", "nobody/nothing"]
    done = run_script("captioning/vitgpt2.py", *options)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    message = "nobody/nothing: no such folder here, and the hub has it not or can't be reached"
    assert message in done.stderr and "pass the folder of a downloaded model as --model" in done.stderr
    assert "can't load" in error(models / "clip")
    message = error_of(
        blip2.main, ["--gesture", "call", "--data_root", photos, "--model", models / "paligemma"], capsys
    )
    assert "paligemma: no Blip2ForConditionalGeneration, " in message or "can't load Blip2" in message
    shutil.copytree(models / "vitgpt2", photos / "half")
    tensors = load_file(photos / "half" / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "encoder" not in k}, photos / "half" / "model.safetensors")
    assert "tensors it lacks" in error(photos / "half")
    (photos / "call" / "5.png").write_bytes(b"nothing")
    message = error(models / "vitgpt2", "--batch_size", 2)
    assert "5.png: not a readable image" in message and "captions so far are kept" in message
    message = error(models / "vitgpt2", "--limit", 3)
    assert "an unfinished run with other settings (photos was 11, is now 3" in message


# Evaluation of the data set


def test_dataset_evaluate_is_the_released_computation(photos, models, tmp_path, capsys):
    from transformers import CLIPModel, CLIPProcessor

    names = sorted(path.name for path in (photos / "call").iterdir())
    captions = [f"a {colour} hand {PHRASE}" for colour in "red green blue grey pink dark light".split()]
    captions += ["a hand " + "and another hand " * 20, *captions[:3]]
    (tmp_path / "names.txt").write_text("\n".join(names))
    (tmp_path / "captions.txt").write_text("\n".join(captions))
    arguments = ["--image_folder", photos / "call", "--image_filenames_path", tmp_path / "names.txt"]
    arguments += ["--captions_path", tmp_path / "captions.txt", "--model", models / "clip", "--num_workers", 0]
    arguments = [str(argument) for argument in [*arguments, "--batch_size", 4, "--json", tmp_path / "result.json"]]
    dataset_evaluate.main(arguments)

    model = CLIPModel.from_pretrained(models / "clip").eval()
    processor = CLIPProcessor.from_pretrained(models / "clip")
    images, texts = [], []
    for name, caption in zip(names, captions):
        inputs = processor(
            text=[caption], images=load_photo(photos / "call" / name), return_tensors="pt", truncation=True
        )
        with torch.no_grad():
            outputs = model(**inputs)
        images.append(outputs.image_embeds[0])
        texts.append(outputs.text_embeds[0])
    cosine = torch.nn.functional.cosine_similarity
    expected = np.mean([float(cosine(image, text, dim=0)) for image, text in zip(images, texts)])
    among = np.mean([float(cosine(a, b, dim=0)) for a in texts for b in texts])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["image_caption"] == pytest.approx(expected, abs=1e-5)
    assert result["caption_caption"] == pytest.approx(among, abs=1e-5)
    assert result["share_with_phrase"] == pytest.approx(10 / 11) and result["cut_off"] == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Similarity 1 (image-caption average similarity): {result['image_caption']:.6f}"
    assert lines[2] == f"Captions with '{PHRASE}': 90.9% of 11"
    dataset_evaluate.main([*arguments, "--limit", "5"])
    assert json.loads((tmp_path / "result.json").read_text())["captions"] == 5

    (tmp_path / "captions.json").write_text(json.dumps({"settings": {"phrase": "another hand and another"}}))
    dataset_evaluate.main(arguments)
    assert "Captions with 'another hand and another': 9.1% of 11" in capsys.readouterr().out
    (tmp_path / "names.txt").write_text("\n".join([*names[:-1], "gone.png"]))
    assert "names.txt: line 11: no photo " in error_of(dataset_evaluate.main, arguments, capsys)


@pytest.mark.skipif(not HAGRID.is_dir(), reason="needs the real photographs of ../shared/data")
def test_the_whole_chain_on_real_photographs(models, tmp_path, capsys):
    root = ["--data_root", str(tmp_path)]
    (tmp_path / "all").mkdir()
    for photo in HAGRID.glob("*.png"):
        shutil.copy(photo, tmp_path / "all")
    select_images.main(
        ["--source", str(tmp_path / "all"), "--gesture", "call", "--num", "14", "--num_test", "10", *root]
    )
    vitgpt2.main(["--gesture", "call", *root, "--model", str(models / "vitgpt2")])
    enrich.main(["--gesture", "call", *root, "--captioner", "VitGpt2", "--backend", "rule"])
    lists = [str(tmp_path / f"call_VitGpt2_{name}.txt") for name in ("file_name", "modified")]
    dataset_evaluate.main(
        ["--image_folder", str(tmp_path / "call"), "--image_filenames_path", lists[0], "--captions_path", lists[1]]
        + ["--model", str(models / "clip")]
    )
    assert f"Captions with '{PHRASE}': 100.0% of 14" in capsys.readouterr().out
