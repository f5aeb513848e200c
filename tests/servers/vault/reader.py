"""Reads one path of a KV engine (version 2) again and again, as any user of hvac does, and prints what it sees, a line each."""

import json
import sys
import time

import hvac
import requests

url, token, path, pause = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
client = hvac.Client(url=url, token=token)
while True:
    began = time.monotonic()
    try:
        answer = client.secrets.kv.v2.read_secret_version(path=path, mount_point="secret", raise_on_deleted_version=True)
        seen = {"data": answer["data"]["data"], "version": answer["data"]["metadata"]["version"]}
    except hvac.exceptions.InvalidPath:
        seen = {"nothing": True}
    except (hvac.exceptions.VaultError, requests.exceptions.RequestException) as error:
        seen = {"away": type(error).__name__}
    seen["took"] = time.monotonic() - began
    print(json.dumps(seen), flush=True)
    time.sleep(pause)
