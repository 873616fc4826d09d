// Everything that arrived is shown with textContent: event keys and data come from anybody, and are never markup.
"use strict";

const at = (id) => document.getElementById(id);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  return Number(value).toLocaleString(undefined, { maximumSignificantDigits: 5 });
}

const count = (value) => Number(value).toLocaleString();
const clock = (ms) => (ms ? new Date(ms).toLocaleTimeString() : "never");

// columns: [title, class, value of a row: text or element]
function table(columns, rows, caption) {
  const made = element("table");
  if (caption) made.append(element("caption", "", caption));
  const head = made.createTHead().insertRow();
  for (const [title, className] of columns) {
    const cell = element("th", className === "n" ? "n" : "", title);
    cell.scope = "col";
    head.append(cell);
  }
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const [, className, value] of columns) {
      const cell = line.insertCell();
      cell.className = className;
      cell.append(value(row));
    }
  }
  return made;
}

function show(id, rows, none, build) {
  at(id).replaceChildren(...(rows.length ? build(rows) : [element("p", "none", none)]));
}

function bar(value, most) {
  const meter = element("meter");
  meter.max = most || 1;
  meter.value = Math.max(0, value || 0);
  meter.setAttribute("aria-hidden", "true");
  return meter;
}

function showReadout(rows) {
  const groups = new Map();
  for (const row of rows) {
    const name = JSON.stringify([row.project, row.metric, row.flag]);
    groups.set(name, [...(groups.get(name) || []), row]);
  }
  return [...groups.values()].map((group) => {
    const most = Math.max(...group.map((row) => Math.abs(row.estimate || 0)));
    const first = group[0];
    const unit = first.unit ? `, ${first.unit}` : "";
    return table([
      ["Variation", "key", (row) => JSON.stringify(row.value)],
      ["Units", "n", (row) => count(row.units)],
      ["With events", "n", (row) => count(row.measured)],
      ["Events", "n", (row) => count(row.events)],
      ["Estimate", "n", (row) => number(row.estimate)],
      ["", "bar", (row) => bar(Math.abs(row.estimate || 0), most)],
      ["Mean", "n", (row) => number(row.mean)],
      ["p50", "n", (row) => number(row.p50)],
      ["p90", "n", (row) => number(row.p90)],
      ["p95", "n", (row) => number(row.p95)],
      ["p99", "n", (row) => number(row.p99)],
    ], group, `${first.metric} by ${first.flag} (${first.measure}${unit}, per ${first.context_kind})`);
  });
}

const measure = (metric) => (metric.isNumeric ? "value" : metric.unitAggregationType === "sum" ? "count" : "occurrence");

function showMetrics(rows) {
  return [table([
    ["Metric", "key", (row) => row.key],
    ["Project", "key", (row) => row.project],
    ["Event key", "key", (row) => row.eventKey || row.kind],
    ["Measure", "", (row) => measure(row)],
    ["Analysis", "", (row) => `${row.unitAggregationType}, ${row.analysisType}${row.percentileValue === undefined ? "" : " " + row.percentileValue}`],
    ["Unit", "", (row) => row.unit || "–"],
    ["Better", "", (row) => (row.successCriteria === "LowerThanBaseline" ? "lower" : "higher")],
    ["Without events", "", (row) => (row.eventDefault.disabled ? "left out" : "0")],
    ["Analysis units", "", (row) => row.analysisUnits.join(", ")],
    ["Last event", "n", (row) => clock(row.lastSeen)],
  ], rows)];
}

function showTotals(rows) {
  return [table([
    ["Event key", "key", (row) => row.event_key],
    ["Metrics", "key", (row) => row.metrics.join(", ") || "none"],
    ["Events", "n", (row) => count(row.events)],
    ["With value", "n", (row) => count(row.values)],
    ["Sum", "n", (row) => number(row.sum)],
    ["Mean", "n", (row) => number(row.mean)],
    ["p50", "n", (row) => number(row.p50)],
    ["p90", "n", (row) => number(row.p90)],
    ["p95", "n", (row) => number(row.p95)],
    ["p99", "n", (row) => number(row.p99)],
  ], rows)];
}

function showHealth(rows) {
  return [table([
    ["", "", (row) => element("span", row.ok ? "good" : "bad", row.ok ? "ok" : "look")],
    ["Metric or event", "key", (row) => row.subject],
    ["Check", "", (row) => row.check],
    ["Seen", "", (row) => row.detail],
  ], rows)];
}

function who(event) {
  const context = event.context;
  if (!context || typeof context !== "object") return JSON.stringify(event.contextKeys || {});
  if (context.kind !== "multi") return `${context.kind}:${context.key}`;
  return Object.entries(context).filter(([kind]) => kind !== "kind").map(([kind, part]) => `${kind}:${part && part.key}`).join(" ");
}

function details(event) {
  const parts = [];
  if (event.metricValue !== undefined) parts.push(`value ${JSON.stringify(event.metricValue)}`);
  if (event.variation !== undefined) parts.push(`variation ${event.variation} = ${JSON.stringify(event.value)}`);
  if (event.reason && event.reason.inExperiment) parts.push("in experiment");
  if (event.data !== undefined) parts.push(JSON.stringify(event.data));
  if (event.features) parts.push(Object.keys(event.features).join(", "));
  return parts.join("  ").slice(0, 400);
}

function showEvents(rows) {
  return [table([
    ["Received", "n", (row) => clock(row.received)],
    ["Kind", "", (row) => row.event.kind],
    ["Key", "key", (row) => String(row.event.key === undefined ? "" : row.event.key)],
    ["Context", "key who", (row) => who(row.event).slice(0, 120)],
    ["", "key data", (row) => details(row.event)],
  ], rows)];
}

function showPayloads(rows) {
  return [table([
    ["Payload id", "key", (row) => row.payloadId],
    ["Posts", "n", (row) => count(row.posts)],
    ["Duplicates", "n", (row) => count(row.duplicates)],
    ["Events", "n", (row) => count(row.events)],
    ["Answers", "", (row) => row.statuses],
    ["Last", "n", (row) => clock(row.received)],
  ], rows)];
}

function showCounters(payloads) {
  const shown = [["events", "events accepted"], ["posts", "posts"], ["duplicates", "repeated payloads"], ["refused", "refused"], ["faults", "faults on purpose"]];
  at("counters").replaceChildren(...shown.map(([name, label]) => {
    const made = element("div", "counter");
    made.append(element("b", "", count(payloads[name])), element("span", "", label));
    return made;
  }));
}

async function read(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function refresh() {
  const [readout, metrics, events, payloads, health] = await Promise.all(
    ["/dev/readout", "/dev/metrics", "/dev/events?limit=40", "/dev/payloads", "/dev/health"].map(read));
  showCounters(payloads);
  show("readout", readout.rows, "Nothing yet: a metric, an exposure and an event of the same context make the first row.", showReadout);
  show("metrics", metrics, "No metric is defined yet.", showMetrics);
  show("totals", readout.totals, "No custom event has arrived yet.", showTotals);
  show("health", health.sort((one, other) => one.ok - other.ok), "Nothing to check yet.", showHealth);
  show("events", events.items.reverse(), "No event has arrived yet.", showEvents);
  show("payloads", payloads.payloads.slice(0, 40), "No payload has arrived yet.", showPayloads);
}

// One refresh at a time; what changes meanwhile causes exactly one more.
let busy = false;
let again = false;

async function changed() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    do { again = false; await refresh(); } while (again);
    live(true, "live");
  } catch (error) {
    live(false, "not reachable");
  } finally {
    busy = false;
  }
}

function live(on, text) {
  at("live").className = on ? "on" : "";
  at("live").textContent = text;
}

const stream = new EventSource("/dev/stream");
stream.addEventListener("revision", changed);
stream.addEventListener("error", () => live(false, "not reachable"));
at("reset").addEventListener("click", async () => {
  if (window.confirm("Forget all events and metrics?")) await fetch("/dev/reset", { method: "POST" });
});
