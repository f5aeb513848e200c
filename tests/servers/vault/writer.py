"""An unmodified writer: hvac writes the object on standard input to one path of the KV engine (version 2) at `secret`.

Arguments: address, token, path."""

import json
import sys

import hvac

address, token, path = sys.argv[1:4]
client = hvac.Client(url=address, token=token)
client.secrets.kv.v2.create_or_update_secret(path=path, secret=json.load(sys.stdin), mount_point="secret")
