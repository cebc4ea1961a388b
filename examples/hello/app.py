"""The smallest function: says hello and tells which environment answered."""

import os
import uuid

ENVIRONMENT_ID = uuid.uuid4().hex
"""Made at init: under SnapStart it is part of the snapshot, so every restored environment shows the same one."""


def handler(event: dict, context: object) -> dict:
    return {
        "message": f"hello, {event.get('name', 'world')}",
        "function_version": context.function_version,
        "initialization": os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE"),
        "initialized_as": ENVIRONMENT_ID,
        "random": os.urandom(8).hex(),
    }
