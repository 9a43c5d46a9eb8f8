"""Opens pages of puppetboard, whose settings PUPPETBOARD_SETTINGS names, and prints what came: a process of its own, since
puppetboard is one application for each process."""

from __future__ import annotations

import json
import sys


def main() -> None:
    sys.argv[0] = "puppetboard"
    from puppetboard.app import app

    client = app.test_client()
    for path in json.loads(sys.stdin.read()):
        if isinstance(path, str):
            answer = client.get(path)
        else:
            answer = client.post(path[0], data=path[1])
        print(json.dumps([path, answer.status_code, answer.get_data(as_text=True)]))


if __name__ == "__main__":
    main()
