"""LaunchDarkly's own clients against the local LaunchDarkly, client by client, as one table.

`conformance.py [--write]` runs every client that it finds or can install (pip, npm) into a folder
of its own, and prints which of the things that it does worked; `--write` puts the table into
docs/devserver.md. What is not installed says so.
"""

from __future__ import annotations

import argparse
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ldinstrument.devserver import LocalLaunchDarkly, experiment_flag, simple_flag

DOCS = Path(__file__).resolve().parent.parent / "docs" / "devserver.md"
BEGIN, END = "<!-- conformance -->", "<!-- /conformance -->"
FOLDER = Path(tempfile.gettempdir()) / "ldinstrument-conformance"
SECONDS = 90
POLLED, POLL_WORD = 45, "yes, each 30 s"
"""Python's SDK polls no more often."""
COLUMNS = ("flags", "change arrives", "exposure", "event")
PYTHON_PACKAGES = (
    "launchdarkly-server-sdk[async]",
    "launchdarkly-server-sdk-ai",
    "launchdarkly-openfeature-server",
    "launchdarkly-api",
)
NPM_PACKAGES = (
    "@launchdarkly/node-server-sdk@9",
    "@launchdarkly/server-sdk-ai",
    "@launchdarkly/js-client-sdk@4",
    "launchdarkly-js-client-sdk@3",
    "launchdarkly-react-client-sdk@3",
    "react@18",
    "react-dom@18",
    "launchdarkly-api-typescript@17",
    "@launchdarkly/mcp-server@0.6",
    "esbuild",
)

# Each Python program gets the URL, prints "ready" once flags are there, waits for the flag `plain`
# to become "b" where it can, and ends after its events were sent.
SYNC = """
import sys, time, ldclient
from ldclient import Config, Context, LDClient, datasystem
url = sys.argv[1]
uris = dict(base_uri=url, stream_uri=url, events_uri=url)
client = LDClient(Config("sdk-key", **uris, {options}), start_wait=30)
context = Context.create("u")
value = client.variation("new-prompt", context, "")
print("flags" if value in ("short", "long") else "", flush=True)
client.track("conformance", context, None, 7)
print("ready", flush=True)
until = time.monotonic() + {seconds}
while time.monotonic() < until and client.variation("plain", context, "") != "b":
    time.sleep(0.1)
print("change arrives" if client.variation("plain", context, "") == "b" else "", flush=True)
client.close()
"""
ASYNC = """
import asyncio, sys
from ldclient import Context
from ldclient.async_client import AsyncLDClient
from ldclient.async_config import AsyncConfig
async def main(url):
    client = AsyncLDClient(AsyncConfig("sdk-key", base_uri=url, stream_uri=url, events_uri=url))
    await client.start(30)
    context = Context.create("u")
    value = await client.variation("new-prompt", context, "")
    print("flags" if value in ("short", "long") else "", flush=True)
    client.track("conformance", context, None, 7)
    print("ready", flush=True)
    for _ in range(100):
        if await client.variation("plain", context, "") == "b":
            print("change arrives", flush=True)
            break
        await asyncio.sleep(0.1)
    await client.flush_and_wait(10)
    await client.close()
asyncio.run(main(sys.argv[1]))
"""
AI = """
import sys, time
from ldclient import Config, Context, LDClient
from ldai.client import LDAIClient
url = sys.argv[1]
client = LDClient(Config("sdk-key", base_uri=url, stream_uri=url, events_uri=url), start_wait=30)
context = Context.create("u")
ai = LDAIClient(client)
get = getattr(ai, "completion_config", None) or ai.config
found = get("new-prompt-ai", context)
config = found[0] if isinstance(found, tuple) else found
print("flags" if config.model and config.model.name == "m-1" else "", flush=True)
client.variation("new-prompt", context, "")
client.track("conformance", context, None, 7)
print("ready", flush=True)
for _ in range(100):
    if client.variation("plain", context, "") == "b":
        print("change arrives", flush=True)
        break
    time.sleep(0.1)
client.close()
"""
OPENFEATURE = """
import sys, time
from ldclient import Config
from ld_openfeature import LaunchDarklyProvider
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.track import TrackingEventDetails
url = sys.argv[1]
config = Config("sdk-key", base_uri=url, stream_uri=url, events_uri=url)
api.set_provider(LaunchDarklyProvider(config))
client, context = api.get_client(), EvaluationContext("u")
for _ in range(100):
    value = client.get_string_value("new-prompt", "", context)
    if value:
        break
    time.sleep(0.1)
print("flags" if value in ("short", "long") else "", flush=True)
client.track("conformance", context, TrackingEventDetails(value=7))
print("ready", flush=True)
for _ in range(100):
    if client.get_string_value("plain", "", context) == "b":
        print("change arrives", flush=True)
        break
    time.sleep(0.1)
api.shutdown()
"""
NODE = """
const { init } = require('@launchdarkly/node-server-sdk');
const url = process.argv[2];
const logger = { debug() {}, info() {}, warn() {}, error: console.error };
const client = init('sdk-key', { baseUri: url, eventsUri: url, streamUri: url, logger });
const context = { kind: 'user', key: 'u' };
(async () => {
  await client.waitForInitialization({ timeout: 30 });
  const value = await client.variation('new-prompt', context, '');
  let flags = ['short', 'long'].includes(value);
  %s
  if (flags) console.log('flags');
  client.track('conformance', context, null, 7);
  client.on('update:plain', async () => {
    if (await client.variation('plain', context, '') === 'b') console.log('change arrives');
    await client.flush(); client.close(); process.exit(0);
  });
  console.log('ready');
  setTimeout(() => process.exit(0), 15000);
})().catch((error) => { console.error(error); process.exit(1); });
"""
NODE_AI = """
  const { initAi } = require('@launchdarkly/server-sdk-ai');
  const ai = initAi(client);
  const get = (ai.completionConfig || ai.config).bind(ai);
  const config = await get('new-prompt-ai', context, { enabled: false });
  flags = flags && config.model && config.model.name === 'm-1';
"""
TYPESCRIPT = """
const api = require('launchdarkly-api-typescript');
const url = process.argv[2];
const configuration = new api.Configuration({ basePath: url, apiKey: 'api-token' });
const metrics = new api.MetricsApi(configuration);
(async () => {
  const made = await metrics.postMetric('default', {
    key: 'k', name: 'k', kind: 'custom', eventKey: 'k',
    isNumeric: true, unit: 'ms', successCriteria: 'LowerThanBaseline' });
  const read = await metrics.getMetric('default', 'k');
  await metrics.patchMetric('default', 'k', [{ op: 'replace', path: '/name', value: 'n' }]);
  const listed = await metrics.getMetrics('default');
  await metrics.deleteMetric('default', 'k');
  const renamed = listed.data.items[0].name === 'n';
  if (made.status === 201 && read.data.key === 'k' && renamed) console.log('REST');
})().catch((error) => { console.error(String(error)); process.exit(1); });
"""
API = """
import sys, launchdarkly_api as api
configuration = api.Configuration(host=sys.argv[1], api_key={"ApiKey": "api-token"})
with api.ApiClient(configuration) as client:
    metrics = api.MetricsApi(client)
    made = metrics.post_metric("default", api.MetricPost.from_dict({
        "key": "k", "kind": "custom", "eventKey": "k", "isNumeric": True, "unit": "ms",
        "successCriteria": "LowerThanBaseline"}))
    patch = [api.PatchOperation(op="replace", path="/name", value="n")]
    metrics.patch_metric("default", "k", patch)
    listed = metrics.get_metrics("default").items[0].name
    metrics.delete_metric("default", "k")
    projects = api.ProjectsApi(client).get_projects().items
    flags = api.FeatureFlagsApi(client).get_feature_flags("default").items
    if made.key == "k" and listed == "n" and projects and flags:
        print("REST")
"""
# LaunchDarkly's MCP server is asked over stdin for its tools, which call the REST API.
MCP = """
import json, subprocess, sys
command = ["node", "node_modules/.bin/mcp", "start", "--api-key", "api-token", "--server-url"]
server = subprocess.Popen([*command, sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True)
def send(method, **message):
    server.stdin.write(json.dumps({"jsonrpc": "2.0", "method": method, **message}) + "\\n")
    server.stdin.flush()
def ask(id, method, params):
    send(method, id=id, params=params)
    for line in server.stdout:
        answer = json.loads(line)
        if answer.get("id") == id:
            return answer["result"]
def tool(name, **request):
    known = {"projectKey": "default", **request}
    answer = ask(name, "tools/call", {"name": name, "arguments": {"request": known}})
    assert not answer.get("isError"), answer
    return answer["content"] and json.loads(answer["content"][0]["text"])
ask(0, "initialize", {"protocolVersion": "2025-03-26", "capabilities": {},
                      "clientInfo": {"name": "conformance", "version": "1"}})
send("notifications/initialized", params={})
tool("create-feature-flag", FeatureFlagBody={"key": "m", "name": "M"})
patch = [{"op": "replace", "path": "/environments/local/on", "value": True}]
tool("update-feature-flag", featureFlagKey="m", PatchWithComment={"patch": patch})
on = tool("get-feature-flag", featureFlagKey="m")["environments"]["local"]["on"]
listed = [flag["key"] for flag in tool("list-feature-flags")["items"]]
tool("delete-feature-flag", featureFlagKey="m")
left = [flag["key"] for flag in tool("list-feature-flags")["items"]]
print("REST" if on and "m" in listed and "m" not in left else "")
server.kill()
"""
BROWSER_4 = """
import { createClient } from '@launchdarkly/js-client-sdk';
const client = createClient('env-id', { kind: 'user', key: 'u' },
  { baseUri: URL_, streamUri: URL_, eventsUri: URL_, streaming: true });
await client.start({ timeout: 30 });
done(client, client.variation('new-prompt', ''), (told) => client.on('change:plain', told));
"""
BROWSER_3 = """
import { initialize } from 'launchdarkly-js-client-sdk';
const client = initialize('env-id', { kind: 'user', key: 'u' },
  { baseUrl: URL_, streamUrl: URL_, eventsUrl: URL_, streaming: true, useReport: true });
await client.waitForInitialization(30);
done(client, client.variation('new-prompt', ''), (told) => client.on('change:plain', told));
"""
REACT = """
import React from 'react';
import { createRoot } from 'react-dom/client';
import { asyncWithLDProvider, useFlags, useLDClient } from 'launchdarkly-react-client-sdk';
const Provider = await asyncWithLDProvider({
  clientSideID: 'env-id', context: { kind: 'user', key: 'u' },
  options: { baseUrl: URL_, streamUrl: URL_, eventsUrl: URL_, streaming: true } });
let told = () => {};
function Shop() {
  const flags = useFlags(), client = useLDClient();
  React.useEffect(() => done(client, flags.newPrompt, (tell) => { told = tell; }), []);
  React.useEffect(() => { if (flags.plain === 'b') told(); }, [flags.plain]);
  return null;
}
createRoot(document.getElementById('root')).render(
  React.createElement(Provider, null, React.createElement(Shop)));
"""
DONE = """
const URL_ = '%s';
const body = document.body.dataset;
function done(client, value, onChange) {
  if (['short', 'long'].includes(value)) body.flags = 'flags';
  onChange(() => { if (client.variation('plain', '') === 'b') body.change = 'change arrives'; });
  client.track('conformance', null, 7);
  client.flush();
  body.ready = 'ready';
}
"""

Outcome = set[str] | str


def environment() -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    found["PYTHONPATH"] = str(FOLDER / "python")
    return found


def server() -> LocalLaunchDarkly:
    ai = {"model": {"name": "m-1"}, "_ldMeta": {"enabled": True, "variationKey": "v", "version": 1}}
    flags = [
        experiment_flag("new-prompt", ["short", "long"]),
        simple_flag("plain", ["a", "b"], 0),
        simple_flag("new-prompt-ai", [ai]),
    ]
    return LocalLaunchDarkly(flags=flags)


def arrived(ld: LocalLaunchDarkly, said: set[str]) -> Outcome:
    """What the client said, and what the server saw of it."""
    try:
        ld.wait_for(lambda: ld.count("custom", "conformance"), 10)
    except TimeoutError:
        return said
    found = said | {"event"}
    exposed = any(event.get("key") == "new-prompt" for event in ld.events("feature"))
    return found | ({"exposure"} if exposed else set())


def program(command: list[str]) -> Outcome:
    """Run a program; change the flag once it is ready."""
    with (
        server() as ld,
        subprocess.Popen(
            [*command, ld.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=FOLDER,
        ) as client,
    ):
        timer = threading.Timer(SECONDS, client.kill)
        timer.start()
        said = set()
        assert client.stdout is not None
        for line in client.stdout:
            said.add(line.strip())
            if line.strip() == "ready":
                ld.set_flag(simple_flag("plain", ["a", "b"], 1))
        client.wait()
        timer.cancel()
        if "REST" in said:
            return {"REST"}
        if client.returncode and "ready" not in said:
            assert client.stderr is not None
            return last_line(client.stderr.read())
        return arrived(ld, said)


def last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return "failed: " + (lines[-1].strip()[:60] if lines else "no word")


def python(source: str, module: str) -> Outcome:
    if not installed_python(module):
        return "not installed"
    return program([sys.executable, "-c", source])


def installed_python(module: str) -> bool:
    command = [sys.executable, "-c", f"import {module}"]
    return subprocess.run(command, env=environment(), capture_output=True).returncode == 0


def node(source: str, package: str, name: str) -> Outcome:
    if not (FOLDER / "node_modules" / package).exists():
        return "not installed"
    path = FOLDER / f"{name}.cjs"
    path.write_text(source)
    return program(["node", str(path)])


def mcp() -> Outcome:
    if not (FOLDER / "node_modules" / ".bin" / "mcp").exists():
        return "not installed"
    return program([sys.executable, "-c", MCP])


def browser(source: str, package: str) -> Outcome:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    bundler = FOLDER / "node_modules" / ".bin" / "esbuild"
    if not (FOLDER / "node_modules" / package).exists() or not bundler.exists() or not chromium:
        return "not installed"
    with server() as ld:
        (FOLDER / "page.mjs").write_text(DONE % ld.url + source)
        bundle = [str(bundler), "page.mjs", "--bundle", "--format=esm", "--outfile=page.js"]
        made = subprocess.run(bundle, cwd=FOLDER, capture_output=True, text=True)
        if made.returncode:
            return last_line(made.stderr)
        page = '<!doctype html><body><div id="root"></div><script type="module" src="page.js">'
        (FOLDER / "page.html").write_text(page + "</script>")
        return in_browser(ld, chromium)


def in_browser(ld: LocalLaunchDarkly, chromium: str) -> Outcome:
    from playwright.sync_api import Error, sync_playwright

    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(FOLDER)))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    try:
        with sync_playwright() as browsers:
            page = browsers.chromium.launch(executable_path=chromium).new_page()
            page.goto(f"http://127.0.0.1:{files.server_address[1]}/page.html")
            page.wait_for_selector("body[data-ready]", state="attached", timeout=40_000)
            ld.set_flag(simple_flag("plain", ["a", "b"], 1))
            try:
                page.wait_for_selector("body[data-change]", state="attached", timeout=15_000)
            except Error:
                pass
            said = page.evaluate("Object.values(document.body.dataset)")
            return arrived(ld, set(said))
    except Error as error:
        return last_line(str(error).splitlines()[0])
    finally:
        files.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...


FDV2 = "datasystem_config=datasystem.default().build()"
FDV2_POLL = "datasystem_config=datasystem.polling().build()"
CLIENTS: tuple[tuple[str, Callable[[], Outcome]], ...] = (
    ("Python, streaming", lambda: python(SYNC.format(options="", seconds=10), "ldclient")),
    (
        "Python, polling",
        lambda: python(SYNC.format(options="stream=False", seconds=POLLED), "ldclient"),
    ),
    (
        "Python, second data system",
        lambda: python(SYNC.format(options=FDV2, seconds=10), "ldclient"),
    ),
    (
        "Python, second data system, polling",
        lambda: python(SYNC.format(options=FDV2_POLL, seconds=POLLED), "ldclient"),
    ),
    ("Python, async", lambda: python(ASYNC, "aiohttp")),
    ("Python AI SDK", lambda: python(AI, "ldai")),
    ("OpenFeature provider for Python", lambda: python(OPENFEATURE, "ld_openfeature")),
    ("Node", lambda: node(NODE % "", "@launchdarkly/node-server-sdk", "node")),
    ("Node AI SDK", lambda: node(NODE % NODE_AI, "@launchdarkly/server-sdk-ai", "node-ai")),
    ("browser SDK 4", lambda: browser(BROWSER_4, "@launchdarkly/js-client-sdk")),
    ("browser SDK 3, REPORT", lambda: browser(BROWSER_3, "launchdarkly-js-client-sdk")),
    ("React", lambda: browser(REACT, "launchdarkly-react-client-sdk")),
    ("launchdarkly-api (Python)", lambda: python(API, "launchdarkly_api")),
    (
        "launchdarkly-api-typescript",
        lambda: node(TYPESCRIPT, "launchdarkly-api-typescript", "typescript"),
    ),
    ("LaunchDarkly's MCP server", mcp),
)


def install() -> None:
    """Install what is missing into a folder of its own; without a registry it stays missing."""
    FOLDER.mkdir(exist_ok=True)
    missing = [
        m
        for m in ("ldai", "ld_openfeature", "aiohttp", "launchdarkly_api")
        if not installed_python(m)
    ]
    if missing:
        target = ["--target", str(FOLDER / "python"), "-q", "--no-warn-conflicts"]
        command = [sys.executable, "-m", "pip", "install", *target, *PYTHON_PACKAGES]
        subprocess.run(command, capture_output=True, timeout=300)
    installed = FOLDER / "node_modules" / "@launchdarkly" / "mcp-server"
    if shutil.which("npm") and not installed.exists():
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(FOLDER)]
        subprocess.run(
            ["npm", "install", *options, *NPM_PACKAGES], capture_output=True, timeout=300
        )


def is_poll(name: str, column: str) -> bool:
    return "polling" in name and column == "change arrives"


def row(name: str, outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return f"| {name} | {outcome} | | | |"
    if "REST" in outcome:
        return f"| {name} | REST calls pass | | | |"
    cells = (
        "no" if column not in outcome else POLL_WORD if is_poll(name, column) else "yes"
        for column in COLUMNS
    )
    return f"| {name} | {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    install()
    lines = [f"| client | {' | '.join(COLUMNS)} |", "| --- | --- | --- | --- | --- |"]
    print(*lines, sep="\n", flush=True)
    for name, run in CLIENTS:
        if asked.only in name:
            lines.append(row(name, run()))
            print(lines[-1], flush=True)
    if asked.write:
        before, rest = DOCS.read_text().split(BEGIN)
        table = "\n".join(lines)
        DOCS.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}")
    return any("failed" in line or "| no |" in line for line in lines)


if __name__ == "__main__":
    sys.exit(main())
