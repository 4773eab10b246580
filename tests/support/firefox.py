"""Drive a Firefox without a driver: it speaks WebDriver BiDi itself, over one socket."""

import json
import re
import shutil
import subprocess
import tempfile
from base64 import b64decode
from contextlib import contextmanager
from pathlib import Path

FIREFOXES = ("firefox-esr", "firefox")


class Firefox:
    """One window of a running Firefox."""

    def __init__(self, socket):
        self.socket, self.asked, self.events = socket, 0, []
        self.ask("session.new", capabilities={})
        self.ask("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        self.window = self.ask("browsingContext.getTree")["contexts"][0]["context"]

    def ask(self, method: str, **parameters) -> dict:
        """Send a command and return its answer; events on the way are kept."""
        self.asked += 1
        self.socket.send(json.dumps({"id": self.asked, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.asked:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}: {answer.get('message')}")
        return answer["result"]

    def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        """Open a file in a window of a size; wait until it has loaded."""
        self.events.clear()
        self.ask("browsingContext.setViewport", context=self.window, viewport={"width": width, "height": height})
        self.ask("browsingContext.navigate", context=self.window, url=path.as_uri(), wait="complete")

    def evaluate(self, script: str):
        """Return what a script gives, as JSON carries it; it may be a promise."""
        expression = f"Promise.resolve({script}).then(value => JSON.stringify(value) ?? 'null')"
        answer = self.ask("script.evaluate", expression=expression, target={"context": self.window}, awaitPromise=True)
        if answer["type"] != "success":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    def press(self, key: str) -> None:
        """Press a key; without a screen the focus moves on, but no page hears of it."""
        keys = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self.ask("input.performActions", context=self.window, actions=[{"type": "key", "id": "keys", "actions": keys}])

    def point(self, selector: str) -> None:
        """Bring the first element of a kind into view, and the pointer over it."""
        x, y = self.evaluate(f"""(node => {{ node.scrollIntoView({{block: 'center', behavior: 'instant'}});
            const box = node.getClientRects()[0]; return [box.x + box.width / 2, box.y + box.height / 2].map(Math.round);
        }})(document.querySelector({selector!r}))""")
        moves = [{"type": "pointerMove", "x": x, "y": y}]
        self.ask("input.performActions", context=self.window, actions=[{"type": "pointer", "id": "mouse", "actions": moves}])

    def picture(self, path: Path) -> None:
        """Keep what the window shows as PNG."""
        path.write_bytes(b64decode(self.ask("browsingContext.captureScreenshot", context=self.window)["data"]))

    @property
    def errors(self) -> list[str]:
        """Errors in the console since the page was opened."""
        entries = [event["params"] for event in self.events if event.get("method") == "log.entryAdded"]
        return [entry["text"] for entry in entries if entry["level"] == "error"]

    @property
    def outside(self) -> list[str]:
        """Addresses that the page asked for and that are no file."""
        asked = [event["params"]["request"]["url"] for event in self.events
                 if event.get("method") == "network.beforeRequestSent"]
        return [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))]


@contextmanager
def firefox():
    """Start a Firefox without a window on the screen; None where there is none, or nothing to talk to it with."""
    found = next((path for name in FIREFOXES if (path := shutil.which(name))), None)
    try:
        from websocket import create_connection  # a part of jupyter-server's own needs
    except ImportError:
        found = None
    if not found:
        yield None
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen([found, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            line = next((found for text in process.stderr if (found := re.search(r"ws://\S+", text))), None)
            socket = create_connection(f"{line[0]}/session", timeout=120, suppress_origin=True)
            yield Firefox(socket)
            socket.close()
        finally:
            process.terminate()
            process.wait(30)
