"""Cores, and the processes that `accelerate launch` starts: how many there are, which one prints, how they begin."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from core.runs.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState

Result = TypeVar("Result")
Watcher = Callable[[str, int, int | None], object]  # what is being done, how much of it, of how much
SHARED_BY = "PROCESSES_THAT_SHARE_THE_CORES"  # environment variable of steps that run side by side
WATCHER: ContextVar[Watcher | None] = ContextVar("WATCHER", default=None)


def cpu_count() -> int:
    """Cores this process may use: a container or `taskset` may allow fewer than there are; steps side by side share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get(SHARED_BY, 1)))


def num_processes() -> int:
    """How many processes `accelerate launch` or `torchrun` started, known before torch is imported."""
    return int(os.environ.get("WORLD_SIZE", 1))


def workers_a_process(num_workers: int | None = None) -> int:
    """`--num_workers`, or where it is not given this process's share of the cores."""
    return cpu_count() // num_processes() if num_workers is None else num_workers


def is_main_process() -> bool:
    """Whether this is the process that prints and writes."""
    return int(os.environ.get("RANK", 0)) == 0


def say(text: str) -> None:
    """Print once, whatever the number of processes."""
    if is_main_process():
        print(text, flush=True)


def counted(count: int, noun: str) -> str:
    """ "1 picture", "2 pictures"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def progress(iterable=None, *, disable: bool = False, **options) -> tqdm:
    """A progress bar, on the main process only."""
    return WatchedBar(iterable, disable=disable or not is_main_process(), dynamic_ncols=True, **options)


class WatchedBar(tqdm):
    """A progress bar that also tells whoever watches."""

    def update(self, n: float | None = 1) -> bool | None:
        shown = super().update(n)
        if (watcher := WATCHER.get()) and not self.disable:
            watcher(self.desc.removesuffix(": "), self.n, self.total)
        return shown


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Hear of all progress that this thread makes in the block, such as to show it in a page.

    What `watcher` raises comes out of the work: so it is stopped between two steps.
    """
    token = WATCHER.set(watcher)
    try:
        yield
    finally:
        WATCHER.reset(token)


def made_ahead(items: Iterator[Result]) -> Iterator[Result]:
    """The same items, each made by a thread while the caller still works on the one before."""
    end: Any = object()
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, items, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, items, end)
            yield item


def worker_pool(num_workers: int, prepare: Callable[[], object] | None = None) -> ProcessPoolExecutor:
    """Worker processes that end when this one does, however it ends.

    Processes, because MediaPipe's objects can't be shared; spawned, because forking after torch has started its
    threads can hang. The caller needs the usual `if __name__ == "__main__"`.

    Args:
        prepare: called once in each worker before its first task.
    """
    context = get_context("spawn")
    return ProcessPoolExecutor(num_workers, mp_context=context, initializer=_begin_worker, initargs=(prepare,))


def _begin_worker(prepare: Callable[[], object] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the parent alone answers it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare:
        prepare()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent:
        parent.join()  # returns once the parent is gone, killed or not
        os._exit(1)


def start_accelerator(
    *,
    mixed_precision: str = "no",
    allow_tf32: bool = False,
    report_to: str | None = None,
    output_dir: Path | None = None,
) -> "Accelerator":
    """accelerate's choice of device, precision and processes for a training script.

    Args:
        mixed_precision: "no", "fp16" or "bf16".
        allow_tf32: float32 products of matrices in TensorFloat-32, on GPUs that have it: faster, 10 bits of mantissa.
        report_to: a tracker that accelerate knows, such as "tensorboard"; its logs go to {output_dir}/logs. The
            caller starts it by `init_trackers`, once the folder is its own.

    Raises:
        UserError: a tracker that is not there, fp16 on the CPU, fewer processes than were asked for.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.tracking import get_available_trackers

    check_all_processes_started()
    AcceleratorState._reset_state()  # or the precision of an experiment's last script would be kept in this process
    if report_to and report_to not in [available.value for available in get_available_trackers()]:
        raise UserError(f"--report_to {report_to}: not a tracker that accelerate knows, or not installed")
    accelerator = Accelerator(
        cpu=processes_need_cpu(),
        mixed_precision=mixed_precision,
        log_with=report_to,
        project_dir=output_dir / "logs" if output_dir else None,
    )
    if mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError("--mixed_precision fp16 needs a GPU; on the CPU use bf16 or no")
    set_tf32(allow_tf32)
    return accelerator


def start_processes() -> "PartialState":
    """The device and the processes of a script that trains nothing.

    Raises:
        UserError: fewer processes than were asked for.
    """
    from accelerate import PartialState

    check_all_processes_started()
    set_tf32(False)
    return PartialState(cpu=processes_need_cpu())


def set_tf32(allowed: bool) -> None:
    """Whether float32 products and convolutions may use TensorFloat-32; torch's own default lets convolutions."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def processes_need_cpu() -> bool:
    """Whether several processes have to meet on the CPU (gloo): accelerate must be told so."""
    import torch

    return num_processes() > 1 and not torch.cuda.is_available() and not torch.xpu.is_available()


def check_all_processes_started() -> None:
    """`accelerate launch --num_processes 2` starts only one process, silently, where there is no GPU.

    Raises:
        UserError
    """
    asked_for_several = {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= os.environ.keys()
    if not asked_for_several or "LOCAL_RANK" in os.environ:
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "accelerate launch started only one process, because it sees no GPU; pass it --multi_gpu as well, "
            "to get all of them on the CPU"
        )


def from_main_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """What `function(*arguments)` returns, computed by the main process alone and sent to all of them."""
    from accelerate.utils import broadcast_object_list

    shared = [function(*arguments) if is_main_process() else None]
    return broadcast_object_list(shared)[0]


def leave_process_group() -> None:
    """End this process's part in `accelerate launch`; gloo's threads may abort a process that just exits."""
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
