"""Runtime hooks: fetch a model into /tmp before the snapshot, take note after each restore.

/tmp is part of the snapshot, so the download happens once, at publish. `MODEL_URL` names the file. If it cannot be
fetched the function still answers, and says why there is no model.
"""

import hashlib
import os
import time
import urllib.request

from snapshot_restore_py import register_after_restore, register_before_snapshot

MODEL_FILE = "/tmp/model.bin"
DOWNLOAD_TIMEOUT_S = 20

state = {"model_error": None, "downloaded_at": None, "restored_at": None}


@register_before_snapshot
def download_model() -> None:
    """Fetches the model; on failure leaves the reason where the handler finds it."""
    url = os.environ.get("MODEL_URL")
    if not url:
        state["model_error"] = "MODEL_URL is not set: give it the address of a file that the function can reach"
        print(state["model_error"])
        return
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as answer, open(MODEL_FILE, "wb") as file:
            file.write(answer.read())
        state["downloaded_at"] = time.time()
        print(f"downloaded {os.path.getsize(MODEL_FILE)} bytes from {url}")
    except OSError as error:
        state["model_error"] = f"cannot download the model from {url}: {error}"
        print(state["model_error"])


@register_after_restore
def note_restore() -> None:
    """Notes when this environment came to life."""
    state["restored_at"] = time.time()
    print(f"restored; the model is {'there' if os.path.exists(MODEL_FILE) else 'missing'}")


def handler(event: dict, context: object) -> dict:
    if not os.path.exists(MODEL_FILE):
        reason = state["model_error"] or "the before-snapshot hook has not run: publish a version with SnapStart"
        return {"model": None, "error": reason, "restored_at": state["restored_at"]}
    with open(MODEL_FILE, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return {"model": digest, "downloaded_at": state["downloaded_at"], "restored_at": state["restored_at"]}
