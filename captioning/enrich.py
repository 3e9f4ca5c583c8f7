"""Captions that name the gesture exactly: {gesture}_{captioner}.txt becomes {gesture}_{captioner}_modified.txt.

An LLM gets the released prompt for each caption; an answer that is not right (the phrase exactly once, no other
gesture, one line, no quotes or explanation, most words kept) is asked again and at last repaired by a rule. A killed
run goes on where it was. The API key of --backend openai comes from the environment: OPENAI_API_KEY.

Examples:
  python captioning/enrich.py --gesture call --captioner BLIP2
  python captioning/enrich.py --gesture call --backend openai --api_base http://localhost:11434/v1 --model llama3
  python captioning/enrich.py --gesture wave --phrase "waving hand gesture" --backend rule
"""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python captioning/enrich.py`

from core.diffusion.pretrained import check_model, load_pretrained
from core.runs.command_line import argument_parser, command_line, gesture_name, natural_int, positive_int
from core.runs.errors import UserError, reason_of
from core.runs.files import check_writable, is_utf8, read_paired_lines
from core.runs.processes import num_processes, progress, say
from hand1000 import journal
from hand1000.enrichment import enrich_by_rule, enrichment_prompt, one_line, problems, share_kept
from hand1000.gestures import PHRASES

DEFAULT_MODELS = {"transformers": "meta-llama/Meta-Llama-3-8B-Instruct", "openai": "llama3", "rule": ""}
MAX_NEW_TOKENS = 128
ATTEMPTS, FIRST_WAIT = 5, 1.0  # of a request that fails, and seconds before the second one; doubled each time
Chat = list[dict[str, str]]  # messages with a role and a content
Ask = Callable[[Sequence[Chat]], list[str]]  # the model's answers, in order


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--gesture", type=gesture_name, required=True, help="what the captions will name")
    parser.add_argument("--captioner", default="BLIP2", help="whose captions: {gesture}_{captioner}.txt")
    parser.add_argument("--data_root", type=Path, default=Path(), help="folder of the gesture's files")
    parser.add_argument("--phrase", help="gesture phrase (default: a built-in one for HaGRID's, and their _test)")
    parser.add_argument("--backend", choices=list(DEFAULT_MODELS), default="transformers", help="who rewrites")
    parser.add_argument("--model", help="hub id or folder, or the server's name for it (default: Llama 3)")
    parser.add_argument("--api_base", default="http://localhost:11434/v1", help="URL of an OpenAI-compatible server")
    parser.add_argument("--timeout", type=positive_int, default=120, help="seconds to wait for the server's answer")
    parser.add_argument("--batch_size", type=positive_int, default=8, help="captions, or requests, at a time")
    parser.add_argument("--retries", type=natural_int, default=2, help="how often a wrong answer is asked again")
    args = parser.parse_args(argv)

    stem = f"{args.gesture}_{args.captioner}"
    source, output = args.data_root / f"{stem}.txt", args.data_root / f"{stem}_modified.txt"
    _, captions = read_paired_lines(args.data_root / f"{stem}_file_name.txt", source)
    phrase = check_phrase(args.phrase or PHRASES.get(args.gesture.removesuffix("_test")), args.gesture)
    model = args.model or DEFAULT_MODELS[args.backend]
    if args.backend == "transformers":
        check_model(model)
    if num_processes() > 1:
        raise UserError("enrichment is one process's work; --batch_size says how many captions at a time")
    check_writable(args.data_root)
    settings = {
        "captions": hashlib.sha256("\n".join(captions).encode()).hexdigest(),
        "lines": len(captions),
        "phrase": phrase,
        "backend": args.backend,
        "model": model,
        "retries": args.retries,
    }
    with journal.locked(output):
        if journal.is_finished([output], settings):
            say(f"{output}: already finished, {len(captions)} captions")
            return
        records = journal.read_journal(output, settings, "caption", captions)
        records = records[: len(records) // args.batch_size * args.batch_size]  # whole batches: the same after a kill
        ask = None
        if args.backend == "transformers" and len(records) < len(captions):
            ask = ask_transformers(model)
        elif args.backend == "openai":
            ask = ask_openai(args.api_base, model, timeout=args.timeout, in_flight=args.batch_size)
        journal.write_journal(output, settings, records)
        with progress(total=len(captions), initial=len(records), desc="Enriching", unit="caption") as bar:
            while len(records) < len(captions):
                batch = captions[len(records) : len(records) + args.batch_size]
                made = enrich(batch, phrase, ask, args.retries)
                journal.append_journal(output, made)
                records += made
                bar.update(len(made))
        report = report_of(records, phrase)
        journal.finish(output, settings, {output: [record["enriched"] for record in records]}, **report)
    say(f"{output}: {len(records)} captions with '{phrase}'")
    counts = ", ".join(f"{report[how]} {how}" for how in ("right at once", "right after a retry", "by the rule"))
    say(f"{counts}; {report['content words kept']:.1%} of the content words kept")
    doubtful = [n for n, made in enumerate(records, start=1) if problems(made["enriched"], made["caption"], phrase)]
    if doubtful:
        lines = ", ".join(map(str, doubtful[:10])) + (", ..." if len(doubtful) > 10 else "")
        say(f"Warning: {len(doubtful)} captions hold the phrase but may name another gesture too; see lines {lines}")


def enrich(captions: Sequence[str], phrase: str, ask: Ask | None, retries: int) -> list[dict[str, str]]:
    """Right enriched captions, each with how it came about.

    Args:
        ask: the model; None leaves all to the rule.
    """
    chats = [[{"role": "user", "content": enrichment_prompt(caption, phrase)}] for caption in captions]
    made: list[dict[str, str] | None] = [None] * len(captions)
    for attempt in range(1 + retries):
        open_places = [place for place, record in enumerate(made) if record is None]
        if ask is None or not open_places:
            break
        for place, answer in zip(open_places, ask([chats[place] for place in open_places])):
            answer = answer.encode("utf-8", "ignore").decode().strip()  # half a surrogate pair can't be written
            wrong = problems(answer, captions[place], phrase)
            if not wrong:
                how = "right after a retry" if attempt else "right at once"
                made[place] = {"enriched": answer, "how": how}
            elif attempt < retries:
                again = f"That is not right: {'; '.join(wrong)}. Provide the modified sentence alone."
                chats[place] += [{"role": "assistant", "content": answer}, {"role": "user", "content": again}]
    records = []
    for record, caption in zip(made, captions):
        record = record or {"enriched": enrich_by_rule(caption, phrase), "how": "by the rule"}
        records.append({"caption": caption, **record})
    return records


def report_of(records: Sequence[dict[str, str]], phrase: str) -> dict[str, float]:
    """How many captions came about how, and the mean share of content words that they kept."""
    hows = [record["how"] for record in records]
    kept = [share_kept(record["enriched"], record["caption"], phrase) for record in records]
    report = {how: hows.count(how) for how in ("right at once", "right after a retry", "by the rule")}
    return {**report, "content words kept": sum(kept) / len(kept)}


def check_phrase(phrase: str | None, gesture: str) -> str:
    """The phrase; raises UserError where there is none, or one that no line can hold."""
    if not phrase:
        known = ", ".join(sorted(PHRASES))
        raise UserError(f"no phrase is known for the gesture '{gesture}'; pass --phrase (known: {known})")
    if phrase != one_line(phrase) or not is_utf8(phrase):
        raise UserError(f"--phrase '{phrase}': no blanks at the ends, double ones, newlines or broken characters")
    return phrase


# Backends


def ask_transformers(model_path: str) -> Ask:
    """A chat model of transformers: batched, greedy."""
    import torch
    from accelerate import PartialState
    from jinja2 import TemplateError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = PartialState().device
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    tokenizer = load_pretrained(AutoTokenizer, model_path, padding_side="left")
    if not tokenizer.chat_template:
        raise UserError(f"{model_path}: has no chat template; take an instruction-tuned model")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = load_pretrained(AutoModelForCausalLM, model_path, dtype=dtype).to(device).eval()

    @torch.inference_mode()
    def ask(chats: Sequence[Chat]) -> list[str]:
        try:
            inputs = tokenizer.apply_chat_template(
                list(chats), add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
            ).to(device)
        except TemplateError as error:
            raise UserError(f"{model_path}: its chat template refuses the chat ({reason_of(error)})") from None
        tokens = model.generate(
            **inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        return tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return ask


def ask_openai(api_base: str, model: str, *, timeout: float, in_flight: int) -> Ask:
    """A server that speaks OpenAI's chat completions (Ollama, vLLM, ...), several requests in flight.

    A request that fails for the server's sake (refused, dropped, timed out, 429, 5xx) is tried again, later and later.

    Raises:
        UserError: when it is called, and the server refuses the request or keeps failing.
    """
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # An empty key rather than none, or the client would send the hub's token to a stranger.
    if not api_base.startswith(("http://", "https://")):
        raise UserError(f"--api_base {api_base}: an address begins with http:// or https://")
    client = InferenceClient(base_url=api_base, api_key=os.environ.get("OPENAI_API_KEY") or "none", timeout=timeout)

    def ask_one(chat: Chat) -> str:
        for attempt in range(ATTEMPTS):
            try:
                answer = client.chat_completion(chat, model=model, temperature=0.0, max_tokens=MAX_NEW_TOKENS)
                content = answer.choices[0].message.content or ""
                if not isinstance(content, str):
                    raise TypeError(f"content is {type(content).__name__}, not text")
                return content
            except OfflineModeIsEnabled:
                raise UserError("HF_HUB_OFFLINE=1 also keeps the client from servers; unset it for this run") from None
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status < 500 and status not in (408, 429):
                    raise UserError(f"{api_base}: refuses the request ({reason_of(error)})") from None
                failure = error
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                raise UserError(
                    f"{api_base}: does not answer like an OpenAI server ({reason_of(error)}); is --api_base right? "
                    "It usually ends in /v1"
                ) from None
            except Exception as error:  # of the HTTP client: refused, dropped, timed out
                failure = error
            if attempt + 1 < ATTEMPTS:
                time.sleep(FIRST_WAIT * 2**attempt)
        raise UserError(
            f"{api_base}: no answer after {ATTEMPTS} attempts ({reason_of(failure)}); captions so far are kept: "
            "run again when the server works"
        )

    def ask(chats: Sequence[Chat]) -> list[str]:
        with ThreadPoolExecutor(in_flight) as pool:
            return list(pool.map(ask_one, chats))

    return ask


if __name__ == "__main__":
    main()
