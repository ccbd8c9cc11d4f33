"""A deployer that restarts its agent, with one log handle per restart.

--mode leak   the handle that Popen got is never closed: the agent has its own
              copy, so this one serves nobody, and each restart leaves one more
--mode close  the handle is closed right after Popen: the same log, no leak

--count N restarts, one every --pace ms, all into --log FILE; prints "ready"
after the last, then waits. It ends when its standard input does.
"""

import argparse
import subprocess
import sys
import threading
import time

AGENT = 'for line in 1 2 3; do echo "agent $1 line $line"; done'


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["leak", "close"], default="leak")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--pace", type=float, default=250)
    parser.add_argument("--log", required=True)
    args, _ = parser.parse_known_args()

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()

    # A service object per deployment, as such programs keep them: the handle
    # stays referenced, so no garbage collection closes it.
    deployments = []
    due = time.monotonic()
    for number in range(args.count):
        if ended.wait(max(0.0, due - time.monotonic())):
            return
        due += args.pace / 1000
        log = open(args.log, "ab")
        agent = subprocess.Popen(
            ["/bin/sh", "-c", AGENT, "deployed-agent", str(number)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        if args.mode == "close":
            log.close()
        agent.wait()
        deployments.append((number, agent, log))
    print("ready", flush=True)
    ended.wait()


if __name__ == "__main__":
    main()
