"""A service manager that forgets the log handle of the agent that it starts.

Each start opens the agent's log, gives it to Popen as its output and drops the object
that knows of it into a list of what was deployed: the handle is never closed.

--log FILE --pace MS; prints "ready" and begins when it hears a line. It ends when its
standard input does.
"""

import argparse
import subprocess
import sys
import threading


class DeploymentRunner:
    """Starts one agent."""

    def __init__(self, log):
        self.path = log
        self.log = None

    def _open_agent_runner_log_file(self):
        return open(self.path, "a", encoding="utf-8")

    def _start_agent(self):
        self.log = self._open_agent_runner_log_file()
        return subprocess.Popen(
            ["/bin/sh", "-c", "echo started"], stdout=self.log, stderr=self.log
        )

    def restart(self):
        self._start_agent().wait()


class DeploymentManager:
    """Keeps all that it has deployed."""

    def __init__(self, log):
        self.log = log
        self.deployed = []

    def deploy(self):
        runner = DeploymentRunner(self.log)
        runner.restart()
        self.deployed.append(runner)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--pace", type=float, default=250)
    args, _ = parser.parse_known_args()

    print("ready", flush=True)
    sys.stdin.readline()
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()

    manager = DeploymentManager(args.log)
    while not ended.wait(args.pace / 1000):
        manager.deploy()


if __name__ == "__main__":
    main()
