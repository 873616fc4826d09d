"""LaunchDarkly's JavaScript SDKs against the local LaunchDarkly: node, and the browser's in a real
Chromium.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

from ldinstrument.devserver import simple_flag

PACKAGES = ("@launchdarkly/node-server-sdk@^9", "@launchdarkly/js-client-sdk@^4")
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.fixture(name="modules", scope="module")
def _modules(request) -> Path:
    """A folder with the SDKs in `node_modules`, kept in pytest's cache from run to run."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if not npm or not node:
        pytest.skip("node and npm are not installed")
    folder = Path(request.config.cache.mkdir("launchdarkly-js"))
    if not all(
        (folder / "node_modules" / package.rpartition("@")[0]).exists() for package in PACKAGES
    ):
        command = [
            npm,
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefix",
            str(folder),
            *PACKAGES,
        ]
        try:
            made = subprocess.run(command, capture_output=True, text=True, timeout=110)
        except subprocess.TimeoutExpired:
            pytest.skip("npm could not install the SDKs within 110 s")
        if made.returncode:
            pytest.skip(f"npm could not install the SDKs: {made.stderr.strip().splitlines()[-1:]}")
    return folder


NODE = """
const { init } = require('@launchdarkly/node-server-sdk');
const url = process.argv[2], stream = process.argv[3] === 'stream';
const logger = { debug() {}, info() {}, warn() {}, error: console.error };
const client = init('sdk-key', { baseUri: url, streamUri: url, eventsUri: url, stream, logger });
(async () => {
  await client.waitForInitialization({ timeout: 60 });
  const seen = [];
  for (let i = 0; i < 40; i++) {
    const context = { kind: 'multi', user: { key: `u-${i}` }, request: { key: `r-${i}` } };
    const value = await client.variation('new-prompt', context, 'none');
    client.track('from.node', context, { value }, i);
    seen.push(value);
  }
  if (stream) await new Promise((resolve) => {
    client.on('update:plain', resolve); console.error('ready');
  });
  const plain = await client.variation('plain', { kind: 'user', key: 'u' }, 'none');
  await client.flush();
  client.close();
  console.log(JSON.stringify({ seen, plain }));
})().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.mark.parametrize("mode", ["stream", "poll"])
def test_the_node_sdk(ld, modules, mode):
    """Its request bodies are chunked, its headers spelt in another case, its bucketing the same as
    everybody's.
    """
    script = modules / "exercise.cjs"
    script.write_text(NODE)
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    command = ["node", str(script), ld.url, mode]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as node:
        try:
            if mode == "stream":
                assert node.stderr.readline() == "ready\n"
                ld.set_flag(simple_flag("plain", ["a", "b"], 1))
            out, errors = node.communicate(timeout=100)
        finally:
            node.kill()
    assert node.returncode == 0, errors
    said = json.loads(out)
    assert said["plain"] == ("b" if mode == "stream" else "none")
    assert [event["data"]["value"] for event in ld.custom_events("from.node")] == said["seen"]
    assert [event["metricValue"] for event in ld.custom_events("from.node")] == list(range(40))
    exposed = {
        event["context"]["user"]["key"]: event["value"]
        for event in ld.events("feature")
        if event["key"] == "new-prompt"
    }
    assert exposed == {f"u-{i}": value for i, value in enumerate(said["seen"])}
    assert set(said["seen"]) == {"short", "long"}
    assert all(post.agent.startswith("NodeJSClient/") and post.payload_id for post in ld.posts())


PAGE = """<!doctype html><title>shop</title><script type="module">
import { createClient } from '/node_modules/@launchdarkly/js-client-sdk/dist/index.js';
const url = '%s';
const context = { kind: 'multi', user: { key: 'u-browser' }, request: { key: 'r-1' } };
const uris = { baseUri: url, streamUri: url, eventsUri: url };
const client = createClient('env-id', context, { ...uris, streaming: true });
await client.start({ timeout: 60 });
const value = client.variation('new-prompt', 'none');
client.track('from.browser', { value }, 7);
await client.flush();
client.on('change:plain', () => {
  document.body.dataset.plain = client.variation('plain', 'none');
});
document.body.dataset.value = value;
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_browser_sdk_in_a_real_browser(ld, modules):
    """From a page of another origin: preflights, polling, an exposure, an event, and a changed flag
    over the stream.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    (modules / "index.html").write_text(PAGE % ld.url)
    handler = partial(_Quiet, directory=str(modules))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as files:
        threading.Thread(target=files.serve_forever, daemon=True).start()
        try:
            with playwright.sync_playwright() as browsers:
                browser = browsers.chromium.launch(
                    executable_path=CHROMIUM, args=["--disable-gpu", "--disable-quic"]
                )
                page = browser.new_page()
                page.goto(f"http://127.0.0.1:{files.server_address[1]}/index.html")
                page.wait_for_selector("body[data-value]", state="attached", timeout=90_000)
                value = page.locator("body").get_attribute("data-value")
                (event,) = ld.wait_for(lambda: ld.custom_events("from.browser"))
                ld.set_flag(simple_flag("plain", ["a", "b"], 1))
                page.wait_for_selector("body[data-plain=b]", state="attached", timeout=90_000)
                browser.close()
        finally:
            files.shutdown()
    assert value in ("short", "long")
    assert (event["metricValue"], event["data"]) == (7, {"value": value})
    (exposure,) = [event for event in ld.events("feature") if event["key"] == "new-prompt"]
    assert (exposure["value"], exposure["reason"]["inExperiment"]) == (value, True)
    assert {post.route for post in ld.posts()} == {"/events/bulk/env-id"}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...
