"""A page in headless Chromium, driven through the DevTools protocol over two pipes: no driver, no package, no port."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LAPTOP = (1366, 768)
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check", "--disable-gpu",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--force-device-scale-factor=1", "--no-sandbox",
)  # fmt: skip
ENOUGH = 60.0  # seconds


def find_chromium() -> str | None:
    """The browser's path, if there is one."""
    return os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab. `complaints`: console errors, exceptions and failed requests; `requests`: every address asked for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.to_browser, self.from_browser = to_browser, from_browser
        self.buffer, self.number, self.loaded = b"", 0, 0
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.answers: dict[int, dict[str, Any]] = {}
        self.contexts: dict[str, int] = {}  # by frame
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(*LAPTOP)

    def resize(self, width: int, height: int) -> None:
        """Set the size of what is seen, in pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, address: str) -> None:
        """Go to an address and wait until it is loaded."""
        before = self.loaded
        self.call("Page.navigate", url=address)
        self._wait(lambda: self.loaded > before, f"{address} was not loaded")

    def run(self, script: str, frame: str | None = None) -> Any:
        """The value of an expression in the page, or in the frame whose address ends so; a promise is waited for."""
        where = {"contextId": self._context(frame)} if frame else {}
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, **where)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, script: str, frame: str | None = None) -> Any:
        """The value of an expression as soon as it is truthy."""
        end = time.monotonic() + ENOUGH
        while not (value := self.run(script, frame)):
            if time.monotonic() > end:
                text = self.run("document.body.innerText")
                raise AssertionError(f"never true: {script}\non the page: {text}\nconsole: {self.complaints}")
            time.sleep(0.05)
        return value

    def frames(self) -> dict[str, str]:
        """Address -> id of every frame inside the page."""
        tree = self.call("Page.getFrameTree")["frameTree"]
        return {it["frame"]["url"]: it["frame"]["id"] for it in tree.get("childFrames", [])}

    def _context(self, ending: str) -> int:
        end = time.monotonic() + ENOUGH
        while True:
            for address, name in self.frames().items():
                if address.endswith(ending) and name in self.contexts:
                    return self.contexts[name]
            assert time.monotonic() < end, f"no frame shows {ending}: {list(self.frames())}"
            time.sleep(0.05)

    def click(self, script: str) -> None:
        """Click in the middle of the element an expression gives, as a mouse does, once it stands still."""
        middle = (
            f"(() => {{ const it = {script}; if (!it) return null; it.scrollIntoView({{block: 'center'}}); "
            "const box = it.getBoundingClientRect(); return box.width && box.height ? "
            "[box.x + box.width / 2, box.y + box.height / 2] : null; })()"
        )
        before, place = None, self.until(middle)
        while place != before:
            time.sleep(0.2)
            before, place = place, self.until(middle)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def picture(self, path: Path) -> None:
        """What is on screen, as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser, and wait for its answer."""
        self.number += 1
        number = self.number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        self._wait(lambda: number in self.answers, f"no answer to {method}")
        answer = self.answers.pop(number)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _wait(self, done: Any, otherwise: str) -> None:
        end = time.monotonic() + ENOUGH
        while not done():
            ready, _, _ = select.select([self.from_browser], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self.from_browser, 1 << 20) if ready else b""
            if not data:
                raise AssertionError(f"{otherwise} ({'the browser ended' if ready else f'in {ENOUGH:g} s'})")
            *messages, self.buffer = (self.buffer + data).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self.answers[message["id"]] = message
            return
        kind, about = message["method"], message["params"]
        if kind == "Page.loadEventFired":
            self.loaded += 1
        elif kind == "Runtime.executionContextCreated":
            self.contexts[about["context"]["auxData"]["frameId"]] = about["context"]["id"]
        elif kind == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif kind == "Network.loadingFailed" and not about.get("canceled"):
            self.complaints.append(f"loading failed: {about['errorText']}")
        elif kind == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {about['exceptionDetails']}")
        elif kind == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            self.complaints.append(f"console: {[it.get('value', it.get('description')) for it in about['args']]}")
        elif kind == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(f"log: {about['entry']['text']} {about['entry'].get('url', '')}")


@contextmanager
def browser(chromium: str) -> Iterator[Page]:
    """A page of a fresh browser, with a profile of its own; both are gone at the end."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # Chromium reads from 3 and writes to 4. Ours go out of the way first, so that neither overwrites the other.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
    os.close(theirs_in), os.close(theirs_out)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [chromium, *FLAGS, f"--user-data-dir={profile}", f"--window-size={LAPTOP[0]},{LAPTOP[1]}"]

        def connect() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        quiet: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, preexec_fn=connect, close_fds=False, **quiet)
        for end in ends:
            os.close(end)
        try:
            yield Page(ours_out, ours_in)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            os.close(ours_out), os.close(ours_in)
