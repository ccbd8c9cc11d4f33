"""A parent whose children carry its files over exec.

--mode carry  every file is inheritable, and one more is opened for each child, so
              that each child carries one more than the one before
--mode close  the same files, which the children are not given
--mode once   all files are opened before the first child, and every child has all

It opens --count files under --dir and starts as many children, one every --pace
ms; prints "ready" after the last. The children touch none of the files; they end
with their standard input, which ends with this program. It ends when its own does.
"""

import argparse
import os
import subprocess
import sys
import threading


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["carry", "close", "once"], default="carry")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--pace", type=float, default=400)
    parser.add_argument("--dir", required=True)
    args, _ = parser.parse_known_args()

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()

    files, children = [], []

    def open_one(number):
        file = open(os.path.join(args.dir, f"heirloom-{number}.dat"), "wb")
        os.set_inheritable(file.fileno(), args.mode != "close")
        files.append(file)

    if args.mode == "once":
        for number in range(args.count):
            open_one(number)
    for number in range(args.count):
        if args.mode != "once":
            open_one(number)
        # cat(1) ends with its standard input: the other ends of these pipes are
        # this program's alone.
        child = subprocess.Popen(
            ["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, close_fds=False
        )
        children.append(child)
        if ended.wait(args.pace / 1000):
            return
    print("ready", flush=True)
    ended.wait()


if __name__ == "__main__":
    main()
