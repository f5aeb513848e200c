"""LocalStack, which ends when its standard input does: a test that was killed leaves none behind.

Without its Pro edition it forgets everything when it ends. Told `keep` it ends as well, and first writes its secrets to the file that is
its argument; a later one with the same file begins with them."""

import os
import pickle
import sys
import threading

import as_aws  # noqa: F401
from localstack.runtime.main import main
from moto.secretsmanager import secretsmanager_backends

file = sys.argv.pop(1)


def read():
    with open(file, "rb") as kept:
        for (account, region), secrets in pickle.load(kept).items():
            secretsmanager_backends[account][region].secrets.update(secrets)


def write():
    with open(file, "wb") as kept:
        regions = [(account, region, backend) for account, all in secretsmanager_backends.items() for region, backend in all.items()]
        pickle.dump({(account, region): dict(backend.secrets) for account, region, backend in regions}, kept)


def listen():
    if sys.stdin.readline().strip() == "keep":
        write()
    os._exit(0)


if os.path.exists(file):
    read()
threading.Thread(target=listen, daemon=True).start()
main()
