"""Moto's server on loopback. Says `ready URL`; a line `stop` takes it away, `start` brings it back at the same address with all
that it kept. Ends when its standard input does."""

import sys

from moto.server import ThreadedMotoServer


def start(port):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    print(f"ready http://127.0.0.1:{port}", flush=True)
    return server, port


server, port = start(0)
for line in sys.stdin:
    if line.strip() == "start":
        server, port = start(port)
    else:
        server.stop()
        print("stopped", flush=True)
