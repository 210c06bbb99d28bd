"""Whether the Hugging Face hub can give the weights of one of timm's backbones: asked once, and never waited for."""

import contextlib
import queue
import threading

TIMEOUT_SECONDS = 2.0
"""How long to wait for the hub, with everything that it takes to find it."""
WEIGHTS_FILE = "model.safetensors"
"""The file with the weights in each of timm's repositories."""


def find_on_hub(backbone: str) -> tuple[bool, str]:
    """Whether timm's weights of `backbone` can be had, from the cache on this machine or from the hub; and how, or why
    not. With HF_HUB_OFFLINE only the cache is looked at."""
    try:
        from huggingface_hub import constants, try_to_load_from_cache
    except ImportError:  # timm needs it as well, and has the say on its version
        return False, "huggingface_hub is not installed"

    repository = f"timm/{backbone}"
    if isinstance(try_to_load_from_cache(repository, WEIGHTS_FILE), str):
        return True, "this machine has a copy from the Hugging Face hub"
    if constants.HF_HUB_OFFLINE:
        return False, "HF_HUB_OFFLINE keeps off the Hugging Face hub"
    if _answers_in_time(repository):
        return True, "the Hugging Face hub has them"
    return False, "the Hugging Face hub does not answer"


def _answers_in_time(repository: str) -> bool:
    """Whether the hub says within TIMEOUT_SECONDS that it has the file.

    The client's own timeout leaves out the look-up of the name, which can take minutes on a machine without a network.
    So the hub is asked in a thread, which does not keep the program from ending.
    """
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(_has_weights(repository)), daemon=True).start()
    with contextlib.suppress(queue.Empty):
        return answers.get(timeout=TIMEOUT_SECONDS)
    return False


def _has_weights(repository: str) -> bool:
    """Ask the hub for the size of the file; False whatever goes wrong."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        # The file is public: no credentials.
        get_hf_file_metadata(hf_hub_url(repository, WEIGHTS_FILE), token=False, timeout=TIMEOUT_SECONDS)
    except Exception:  # no network, a proxy, a certificate, a firewall: there are too many ways
        return False
    return True
