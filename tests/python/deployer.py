"""A deployer that restarts its agent, with one log handle per start.

--mode leak   the handle that Popen got is never closed: the agent has its own
              copy, so this one serves nobody, and each restart leaves one more
--mode close  the handle is closed right after Popen: the same log, no leak

It starts the agent and restarts it --count times, once every --pace ms, all
into --log FILE; prints "ready" after the last restart and lets that agent run.
So it leaks --count handles: the newest is that of a living agent. It ends when
its standard input does.
"""

import argparse
import subprocess
import sys
import threading
import time

# Writes what it is told to, and ends when its own standard input does.
AGENT = 'while read -r line; do echo "agent $1: $line"; done'


class Deployment:
    """One life of the agent. It keeps its handle, as such programs do, so that
    no garbage collection closes it."""

    def __init__(self, number, path, close):
        self.log = open(path, "ab")
        self.agent = subprocess.Popen(
            ["/bin/sh", "-c", AGENT, "deployed-agent", str(number)],
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
        )
        if close:
            self.log.close()

    def work(self):
        self.agent.stdin.write(b"working\n")
        self.agent.stdin.flush()

    def stop(self):
        self.agent.stdin.close()
        self.agent.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["leak", "close"], default="leak")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--pace", type=float, default=250)
    parser.add_argument("--log", required=True)
    args, _ = parser.parse_known_args()

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()

    deployments = []
    due = time.monotonic()
    for number in range(args.count + 1):
        if deployments:
            deployments[-1].stop()
        deployments.append(Deployment(number, args.log, args.mode == "close"))
        deployments[-1].work()
        due += args.pace / 1000
        if number < args.count and ended.wait(max(0.0, due - time.monotonic())):
            return
    print("ready", flush=True)
    while not ended.wait(args.pace / 1000):
        deployments[-1].work()


if __name__ == "__main__":
    main()
