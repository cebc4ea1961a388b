"""Makes a boto3 client at init, as most functions on AWS do, and uses it without any network.

The client, with its parsed service model, is part of the snapshot. Its credentials are not: in a restored environment
they come from the container credentials endpoint, which the platform serves anew.
"""

import os

import boto3

S3 = boto3.client("s3", region_name=os.environ.get("AWS_REGION", "us-east-1"))


def handler(event: dict, context: object) -> dict:
    """Signs a download link, which needs valid credentials and the right time but no connection to S3."""
    link = S3.generate_presigned_url(
        "get_object", Params={"Bucket": event["bucket"], "Key": event["key"]}, ExpiresIn=300
    )
    return {"link": link, "botocore": S3.meta.config.user_agent.split(" ")[0]}
