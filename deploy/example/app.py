"""Fetches a credential at the start, takes changes up from the stream, and confirms what it uses. Standard library only."""

import hashlib
import hmac
import json
import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request

URL = os.environ["KEYWRIGHT_URL"]
CREDENTIAL = os.environ["KEYWRIGHT_CREDENTIAL"]
FIELD = os.environ["KEYWRIGHT_FIELD"]
FOLDER = os.environ.get("KEYWRIGHT_FOLDER", "/var/run/secrets/keywright")
INSTANCE = os.environ.get("KEYWRIGHT_INSTANCE", socket.gethostname())
TRUST = ssl.create_default_context(cafile=f"{FOLDER}/ca.crt")


def call(path, body=None, timeout=30):
    # The token is read for each call: the kubelet renews it.
    with open(f"{FOLDER}/token", encoding="ascii") as file:
        headers = {"Authorization": f"Bearer {file.read().strip()}", "Keywright-Instance": INSTANCE}
    if body is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data=body, headers=headers)
    return urllib.request.urlopen(request, timeout=timeout, context=TRUST)


def take_up(document):
    """Here a real application opens its pools with the new value, tries it, and lets calls with the old one end."""
    print(f"{CREDENTIAL} {document['version']} is in use", flush=True)


def confirm(document):
    """Says that nothing here uses an older version any more. Sent too early, it would kill a key that is still in use."""
    message = f"keywright-confirm\n{CREDENTIAL}\n{document['version']}\n{INSTANCE}".encode()
    proof = hmac.new(document["fields"][FIELD].encode(), message, hashlib.sha256).hexdigest()
    body = {"credential": CREDENTIAL, "version": document["version"], "instance": INSTANCE, "field": FIELD, "proof": proof}
    call("/v1/confirmations", body).close()
    print(f"{CREDENTIAL} {document['version']} is confirmed", flush=True)


def follow(revision):
    """Takes up each newer document of the stream, until the stream ends. Comment lines come at least every 15 seconds."""
    with call(f"/v1/events?credentials={CREDENTIAL}", timeout=45) as stream:
        event = ""
        for line in stream:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                event = value
            elif name == "data" and event == "credential":
                document = json.loads(value)
                if document["revision"] > revision:
                    take_up(document)
                    confirm(document)
                    revision = document["revision"]
    return revision


def main():
    revision = -1
    while True:
        try:
            if revision < 0:
                with call(f"/v1/credentials/{CREDENTIAL}") as answer:
                    document = json.load(answer)
                take_up(document)
                confirm(document)
                revision = document["revision"]
            revision = follow(revision)
        except urllib.error.HTTPError as error:
            # The body says why, and never holds a value.
            print(f"refused: {error.code} {error.read().decode()}", file=sys.stderr, flush=True)
        except OSError as error:
            print(f"not reached: {error}", file=sys.stderr, flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
