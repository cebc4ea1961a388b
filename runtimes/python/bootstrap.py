"""Starts the unmodified AWS runtime interface client, as `/var/runtime/bootstrap.py` does on AWS.

What it adds to the client: the module search path of Lambda (code first, then layers, then the runtime; never the
packages that happen to be installed on the host), and, in an environment that is going to be snapshotted, two hooks of
the platform, registered before the function's code is imported. The one before the snapshot runs after those of the
function and does what every clone would otherwise do again; the one after a restore runs before those of the function
and gives each environment random state of its own.

Deliberately absent: everything the client does itself (handler lookup, hooks, logging, the Runtime API), and OpenSSL,
which the engine reseeds in every clone before any of this code runs on.
"""

import os
import sys

INITIALIZATION_TYPE = "AWS_LAMBDA_INITIALIZATION_TYPE"
SNAP_START = "snap-start"


def main() -> None:
    """Arranges the search path, registers the platform's hook where it is needed and hands over to the client."""
    arrange_search_path()
    if os.environ.get(INITIALIZATION_TYPE) == SNAP_START:
        register_platform_hooks()
    from awslambdaric.__main__ import main as run_client

    run_client(["awslambdaric", os.environ["_HANDLER"]])


def arrange_search_path() -> None:
    """Makes `sys.path` what it is on Lambda.

    Order: code, layers (unless the function sets PYTHONPATH, as on AWS), runtime, standard library. `.pth` files in
    code and layers are honored. The interpreter is started with `-S`, so its own site-packages are left out, `.pth`
    files included: what is installed on the host is not part of the function. What else `site` does is made up for.
    """
    import site

    task_root = os.environ["LAMBDA_TASK_ROOT"]
    own_path = "PYTHONPATH" in os.environ
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    layers = [] if own_path else ["/opt/python/lib/" + python + "/site-packages", "/opt/python"]
    roots = [task_root, *layers]

    sys.path[:0] = roots
    for root in roots:
        if os.path.isdir(root):
            site.addsitedir(root)
    if not own_path:
        os.environ["PYTHONPATH"] = os.environ.get("LAMBDA_RUNTIME_DIR", "/var/runtime")
    site.setquit()
    site.setcopyright()
    site.sethelper()
    site.execsitecustomize()


def register_platform_hooks() -> None:
    """Registers the platform's hooks. Call it before the function is imported.

    Before-snapshot hooks run from the last to the first, after-restore hooks from the first to the last: ours are the
    last before the snapshot and the first after it.
    """
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    register_before_snapshot(settle)
    register_after_restore(renew_random_state)


def settle() -> None:
    """Does once, before the snapshot, what every clone would otherwise do by itself.

    Garbage is collected, and what is left is moved out of the collector's sight: a later collection would write to the
    header of every object and so copy every page that the clones share. OpenSSL sets up its generators at their first
    use; the engine's reseeding would be that first use in every clone.
    """
    import gc
    import http.client  # noqa: F401  (the client imports it right after this, and with it OpenSSL)

    openssl = sys.modules.get("_ssl")
    if openssl is not None:
        openssl.RAND_bytes(1)
    gc.collect()
    gc.freeze()


def renew_random_state() -> None:
    """Gives this environment random state that no other clone of the snapshot has.

    Only modules that the function has imported are touched: one that is imported later seeds itself from the kernel.
    A failure is raised, never hidden: an environment that would repeat another one's numbers must not serve.
    Generators that user code made itself (`random.Random()`, `numpy.random.default_rng()`) cannot be found safely:
    reseed them in an after-restore hook of your own.
    """
    random = sys.modules.get("random")
    if random is not None:
        random.seed()

    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        # The next temporary name makes a new generator; the old one would repeat the names of other clones.
        tempfile._name_sequence = None

    # `numpy.random` is imported by `import numpy` up to 1.x and lazily since: ask for the module that holds the state.
    legacy = sys.modules.get("numpy.random.mtrand")
    if legacy is not None:
        legacy.seed()


if __name__ == "__main__":
    main()
