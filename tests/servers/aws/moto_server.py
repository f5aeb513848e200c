"""Moto's server on loopback. Says `ready URL`; a line `stop` takes it away, `start` brings it back at the same address with all
that it kept. After `sort` it lists by the last change, the last first, as AWS does where that is asked: moto of itself never sorts. `age
SECONDS` makes each change so much older. Ends when its standard input does."""

import sys

import as_aws  # noqa: F401
from moto.secretsmanager import secretsmanager_backends
from moto.secretsmanager.models import SecretsManagerBackend
from moto.server import ThreadedMotoServer

unsorted = SecretsManagerBackend.list_secrets


def start(port):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    print(f"ready http://127.0.0.1:{port}", flush=True)
    return server, port


def list_sorted(self, filters, max_results, next_token, include_planned_deletion=False):
    found, _ = unsorted(self, filters, sys.maxsize, None, include_planned_deletion)
    found.sort(key=lambda secret: secret["LastChangedDate"], reverse=True)
    return self._get_secret_values_page_and_next_token(found, max_results, next_token)


def age(seconds):
    for regions in secretsmanager_backends.values():
        for backend in regions.values():
            for secret in backend.secrets.values():
                secret.last_changed_date -= seconds


server, port = start(0)
for line in sys.stdin:
    words = line.split()
    if words[0] == "start":
        server, port = start(port)
        continue
    if words[0] == "stop":
        server.stop()
    elif words[0] == "sort":
        SecretsManagerBackend.list_secrets = list_sorted
    elif words[0] == "age":
        age(int(words[1]))
    print("done", flush=True)
