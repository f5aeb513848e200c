"""An unmodified reader: boto3 asks for one secret again and again, and prints each change of what it gets, as one line of JSON.

Arguments: endpoint, secret, and `plain` or the stage to ask for. Ends when its standard input does."""

import json
import sys
import threading
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

endpoint, secret, stage = sys.argv[1:4]
client = boto3.client(
    "secretsmanager",
    endpoint_url=endpoint,
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
    config=Config(retries={"total_max_attempts": 1}),
)
how = {} if stage == "plain" else {"VersionStage": stage}


def look():
    try:
        return {"value": client.get_secret_value(SecretId=secret, **how)["SecretString"]}
    except ClientError as error:
        return {"error": error.response["Error"]["Code"]}
    except BotoCoreError as error:
        return {"error": type(error).__name__}


ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
before = None
looks = 0
while not ended.is_set():
    now = look()
    looks += 1
    if now != before:
        before = now
        print(json.dumps(now), flush=True)
    time.sleep(0.02)
print(json.dumps({"looks": looks}), flush=True)
