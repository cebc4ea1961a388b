"""Starts the unmodified AWS runtime interface client, as `/var/runtime/bootstrap.py` does on AWS.

What it adds to the client: the module search path of Lambda (code first, then layers, then the runtime; never the
packages that happen to be installed on the host), and, in an environment that is going to be snapshotted, two hooks of
the platform, registered before the function's code is imported. The one before the snapshot runs after those of the
function and does what every clone would otherwise do again; the one after a restore runs before those of the function
and gives each environment random state of its own. For a function that declares warm-up events there is one more: it
runs before the before-snapshot hooks of the function and takes the events. So these hooks find the process as it goes
into the snapshot, and the after-restore hooks are run by the client as ever, once in every clone.

Deliberately absent: everything the client does itself (handler lookup, hooks, events, logging, the Runtime API), and
OpenSSL, which the engine reseeds in every clone before any of this code runs on.
"""

import os
import sys

INITIALIZATION_TYPE = "AWS_LAMBDA_INITIALIZATION_TYPE"
SNAP_START = "snap-start"

WARM_UP_EVENTS = "REKINDLE_WARM_UP_EVENTS"
"""How many warm-up events the function declares; the server has checked that it is a number."""

FUNCTION_MODULE = "rekindle_function"
"""The module that the client is told to import where events are to be taken as soon as the function is imported."""


def main() -> None:
    """Arranges the search path, registers the platform's hooks where they are needed and hands over to the client."""
    arrange_search_path()
    handler = os.environ["_HANDLER"]
    if os.environ.get(INITIALIZATION_TYPE) == SNAP_START:
        register_platform_hooks()
        events = int(os.environ.get(WARM_UP_EVENTS, "0"))
        if events > 0:
            sys.meta_path.insert(0, FunctionImporter(handler, events))
            handler = FUNCTION_MODULE + ".handler"
    from awslambdaric.__main__ import main as run_client

    run_client(["awslambdaric", handler])


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


class FunctionImporter:
    """Imports the function under another name, to act between its import and its before-snapshot hooks.

    The client imports the handler and runs the hooks in one go. It is given `FUNCTION_MODULE` as the handler's module,
    which this class makes, once: it lets the client look the real handler up, with its own errors, and then registers
    the warm-up. Of before-snapshot hooks the last one runs first. The handler that the client gets is the function's
    own, so nothing stands in the way of its invocations.
    """

    def __init__(self, handler: str, events: int) -> None:
        self.handler = handler
        self.events = events

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        """Answers for `FUNCTION_MODULE` alone, and for nothing after that."""
        if name != FUNCTION_MODULE:
            return None
        from importlib.machinery import ModuleSpec

        sys.meta_path.remove(self)
        return ModuleSpec(name, self)

    def create_module(self, spec: object) -> None:
        """Has nothing special in mind."""

    def exec_module(self, module: object) -> None:
        """Imports the function."""
        from awslambdaric.bootstrap import _get_handler
        from snapshot_restore_py import register_before_snapshot

        module.handler = _get_handler(self.handler)
        register_before_snapshot(take_warm_up_events, module.handler, self.events)


def take_warm_up_events(handler: object, events: int) -> None:
    """Serves that many events as the client's own loop does, with its own functions.

    Answers and errors go to the server, which logs them; what is not an error of the handler (`sys.exit`, a broken
    client) ends the init. The arguments of the client's function have grown over its versions, so they are given by
    name: those of the request that it asks for, and a few that it calls otherwise.
    """
    from awslambdaric import bootstrap as client
    from awslambdaric.lambda_runtime_client import LambdaRuntimeClient

    runtime_api = LambdaRuntimeClient(os.environ["AWS_LAMBDA_RUNTIME_API"])
    code = client.handle_event_request.__code__
    parameters = code.co_varnames[: code.co_argcount]
    own = {"lambda_runtime_client": runtime_api, "request_handler": handler, "log_sink": client.StandardLogSink()}
    for _ in range(events):
        request = runtime_api.wait_next_invocation()
        client._GLOBAL_AWS_REQUEST_ID = request.invoke_id
        client.update_xray_env_variable(request.x_amzn_trace_id)
        given = {
            **vars(request),
            **own,
            "client_context_json": request.client_context,
            "cognito_identity_json": request.cognito_identity,
            "epoch_deadline_time_in_ms": request.deadline_time_in_ms,
        }
        client.handle_event_request(**{name: given[name] for name in parameters})
    client._GLOBAL_AWS_REQUEST_ID = None
    client.update_xray_env_variable(None)


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
