"""LocalStack, which ends when its standard input does: a test that was killed leaves none behind."""

import os
import sys
import threading

from localstack.runtime.main import main

threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
main()
