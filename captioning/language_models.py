"""Language models that rewrite captions: a chat model of transformers, or a server that speaks OpenAI's protocol."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from core.diffusion.pretrained import load_pretrained
from core.runs.errors import UserError, reason_of
from hand1000.enrichment import Ask, Chat

Result = TypeVar("Result")
MAX_NEW_TOKENS = 128
LONGEST_ANSWER = 2000  # characters that are looked at; MAX_NEW_TOKENS are fewer
ATTEMPTS, FIRST_WAIT = 5, 1.0  # of a request that fails; seconds before the second attempt, doubled each time


def ask_transformers(model_path: str) -> Ask:
    """A chat model of transformers: batched, greedy.

    Raises:
        UserError: it cannot be loaded, or is not made for chats.
    """
    import torch
    from jinja2 import TemplateError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from core.runs.processes import start_processes

    device = start_processes().device
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    tokenizer = load_pretrained(AutoTokenizer, model_path, padding_side="left")
    if not tokenizer.chat_template:
        raise UserError(f"{model_path}: has no chat template; use an instruction-tuned model")
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


def ask_openai(api_base: str, model: str, *, timeout: float) -> Ask:
    """A server that speaks OpenAI's chat completions (Ollama, vLLM, ...); all chats are asked at the same time.

    A request that fails because of the server (refused, dropped, timed out, 429, 5xx) is tried again after longer and
    longer waits. The key, OPENAI_API_KEY, is never part of a message.

    Args:
        timeout: seconds to wait for a whole answer, however slowly it arrives.

    Raises:
        UserError: also when it is called: the server refuses a request or keeps failing.
    """
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if not api_base.startswith(("http://", "https://")):
        raise UserError(f"--api_base {api_base}: an address begins with http:// or https://")
    # Never without a key: the client would send the hub's token to the server.
    key = os.environ.get("OPENAI_API_KEY") or "none"
    if not (key.isascii() and key.isprintable()):
        raise UserError("OPENAI_API_KEY: holds a newline or another character that no key has; set it again")
    client = InferenceClient(base_url=api_base, api_key=key, timeout=timeout)

    def reason(error: Exception) -> str:
        return reason_of(Exception(str(error).replace(key, "the key") or type(error).__name__))

    def ask_one(chat: Chat) -> str:
        for attempt in range(ATTEMPTS):
            try:
                answer = within(
                    timeout,
                    lambda: client.chat_completion(chat, model=model, temperature=0.0, max_tokens=MAX_NEW_TOKENS),
                )
                content = answer.choices[0].message.content or ""
                if not isinstance(content, str):
                    raise TypeError(f"content is {type(content).__name__}, not text")
                return content[:LONGEST_ANSWER]
            except OfflineModeIsEnabled:
                raise UserError("HF_HUB_OFFLINE=1 also keeps the client from servers; unset it for this run") from None
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status < 500 and status not in (408, 429):
                    raise UserError(f"{api_base}: refuses the request ({reason(error)})") from None
                failure = error
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                raise UserError(
                    f"{api_base}: does not answer like an OpenAI server ({reason(error)}); is --api_base right? "
                    "It usually ends in /v1"
                ) from None
            except Exception as error:  # of the HTTP client: refused, dropped, timed out
                failure = error
            if attempt + 1 < ATTEMPTS:
                time.sleep(FIRST_WAIT * 2**attempt)
        raise UserError(
            f"{api_base}: no answer after {ATTEMPTS} attempts ({reason(failure)}); captions so far are kept: "
            "run again when the server works"
        )

    return lambda chats: map_in_threads(ask_one, chats)


def within(seconds: float, function: Callable[[], Result]) -> Result:
    """`function()`; the HTTP client only limits the wait for the next byte.

    Raises:
        TimeoutError: it did not return in time. Its thread is left to itself, and ends with the program.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no whole answer in {seconds} seconds")
    return results[0]


def map_in_threads(function: Callable[[Chat], str], chats: Sequence[Chat]) -> list[str]:
    """`function` of each chat, each in a thread of its own.

    Daemon threads, unlike those of an executor: a program that is interrupted ends without waiting for a server.

    Raises:
        The first error, in the order of the chats.
    """
    results: list[str | BaseException] = [""] * len(chats)

    def work(place: int) -> None:
        try:
            results[place] = function(chats[place])
        except BaseException as error:
            results[place] = error

    threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(len(chats))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [str(result) for result in results]
