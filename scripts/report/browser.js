// Opens pages in a headless Chromium at desk and phone width, in the light and in the dark, and fails on console messages, failed
// requests, missing figures, text that cannot be told from its background, and anything wider than the screen.
//
//   CHROME=/path/to/chrome node scripts/report/browser.js SCREENSHOTS PAGE.html...
//
// Needs Node and any Chromium, and no package: it speaks the browser's own protocol over a pipe.

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { pathToFileURL } = require("node:url");

const WIDTHS = [1400, 390];
const SCHEMES = ["light", "dark"];
const LEAST_CONTRAST = 4.5; // WCAG AA for text

/** Runs in the page: what is wrong with how it looks */
function inspect(leastContrast) {
  const faults = [];
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) faults.push(`scrolls to ${document.documentElement.scrollWidth} of ${width} px`);
  const all = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility());
  for (const element of all) {
    if (element.closest(".wide") || element.closest("svg")) continue;
    const { right, left } = element.getBoundingClientRect();
    if (right > width + 1 || left < -1) faults.push(`<${element.tagName.toLowerCase()}> reaches ${Math.round(right)} of ${width} px`);
  }
  for (const svg of document.querySelectorAll("svg")) {
    const { width, height } = svg.getBoundingClientRect();
    if (svg.checkVisibility() && (width < 100 || height < 50)) faults.push(`a figure of ${width} × ${height} px`);
    for (const text of svg.querySelectorAll("text")) {
      const box = text.getBBox();
      if (box.width === 0) faults.push(`«${text.textContent}» is not drawn: there is no font`);
      const [, , w, h] = svg.getAttribute("viewBox").split(" ").map(Number);
      if (box.x < -1 || box.y < -1 || box.x + box.width > w + 1 || box.y + box.height > h + 1) {
        if (!text.getAttribute("transform")) faults.push(`«${text.textContent}» is cut off in «${svg.getAttribute("aria-label")}»`);
      }
    }
  }
  const parse = (color) => (color.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const linear = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const poor = new Set();
  for (const element of all) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own) continue;
    const style = getComputedStyle(element);
    const [a, b] = [parse(element.closest("svg") ? style.fill : style.color), behind(element)].map(light);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < leastContrast) poor.add(`«${element.textContent.trim().slice(0, 30)}» has a contrast of ${contrast.toFixed(1)}`);
  }
  faults.push(...poor);
  return { faults, figures: document.querySelectorAll("svg").length, height: document.documentElement.scrollHeight };
}

class Browser {
  constructor(program) {
    this.profile = fs.mkdtempSync(path.join(os.tmpdir(), "browser-"));
    const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--remote-debugging-pipe"];
    this.child = spawn(program, [...flags, `--user-data-dir=${this.profile}`, "about:blank"], {
      stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
    });
    this.child.on("exit", (code) => this.waiting.forEach(({ reject }) => reject(new Error(`the browser ended with ${code}`))));
    this.child.on("error", (cause) => this.waiting.forEach(({ reject }) => reject(cause)));
    [this.waiting, this.listeners, this.last, this.rest] = [new Map(), [], 0, ""];
    this.child.stdio[4].on("data", (bytes) => {
      const parts = (this.rest + bytes).split("\0");
      this.rest = parts.pop();
      parts.forEach((text) => this.receive(JSON.parse(text)));
    });
  }

  receive(message) {
    const asked = this.waiting.get(message.id);
    if (!asked) return this.listeners.forEach((listener) => listener(message));
    this.waiting.delete(message.id);
    message.error ? asked.reject(new Error(message.error.message)) : asked.resolve(message.result);
  }

  send(method, params = {}, sessionId) {
    const id = ++this.last;
    this.child.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  async close() {
    const gone = new Promise((resolve) => this.child.once("exit", resolve));
    await this.send("Browser.close").catch(() => {});
    await gone;
    fs.rmSync(this.profile, { recursive: true, force: true });
  }
}

async function look(browser, page, width, scheme, folder) {
  const { targetId } = await browser.send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: true });
  const send = (method, params) => browser.send(method, params, sessionId);
  const said = [];
  let loaded;
  const load = new Promise((resolve) => (loaded = resolve));
  const listener = ({ method, params, sessionId: from }) => {
    if (from !== sessionId) return;
    if (method === "Runtime.consoleAPICalled") said.push(`console: ${params.args.map((a) => a.value).join(" ")}`);
    if (method === "Runtime.exceptionThrown") said.push(`exception: ${params.exceptionDetails.text}`);
    if (method === "Log.entryAdded") said.push(`log: ${params.entry.text}`);
    if (method === "Network.requestWillBeSent" && params.request.url !== pathToFileURL(page).href) said.push(`asks for ${params.request.url}`);
    if (method === "Network.loadingFailed") said.push(`failed: ${params.errorText}`);
    if (method === "Page.loadEventFired") loaded();
  };
  browser.listeners.push(listener);
  for (const domain of ["Runtime", "Log", "Network", "Page"]) await send(`${domain}.enable`);
  await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  await send("Emulation.setDeviceMetricsOverride", { width, height: 900, deviceScaleFactor: 1, mobile: width < 600 });
  await send("Page.navigate", { url: pathToFileURL(page).href });
  await load;
  const evaluate = async (expression) => (await send("Runtime.evaluate", { expression, returnByValue: true })).result.value;
  const name = `${path.basename(path.dirname(path.resolve(page)))}-${path.basename(page, ".html")}-${width}-${scheme}`;
  const shoot = async (suffix) => {
    const { height } = await evaluate(`({ height: document.documentElement.scrollHeight })`);
    const clip = { x: 0, y: 0, width, height: Math.min(height, 12000), scale: 1 };
    const { data } = await send("Page.captureScreenshot", { format: "png", clip, captureBeyondViewport: true });
    fs.writeFileSync(path.join(folder, `${name}${suffix}.png`), Buffer.from(data, "base64"));
  };
  await shoot("");
  await evaluate(`document.querySelectorAll("details").forEach((d) => (d.open = true))`);
  const found = await evaluate(`(${inspect})(${LEAST_CONTRAST})`);
  if (found.figures === 0) found.faults.push("no figure");
  browser.listeners.splice(browser.listeners.indexOf(listener), 1);
  await browser.send("Target.closeTarget", { targetId });
  return { name, figures: found.figures, height: found.height, faults: [...said, ...found.faults] };
}

async function main() {
  const [folder, ...pages] = process.argv.slice(2);
  if (!process.env.CHROME || pages.length === 0) {
    console.error("usage: CHROME=PROGRAM node browser.js SCREENSHOTS PAGE.html...");
    process.exit(2);
  }
  fs.mkdirSync(folder, { recursive: true });
  const browser = new Browser(process.env.CHROME);
  let faults = 0;
  try {
    for (const page of pages) {
      for (const width of WIDTHS) {
        for (const scheme of SCHEMES) {
          const found = await look(browser, page, width, scheme, folder);
          console.log(`${found.name}: ${found.figures} figures, ${found.height} px high, ${found.faults.length} faults`);
          found.faults.forEach((fault) => console.log(`  ${fault}`));
          faults += found.faults.length;
        }
      }
    }
  } finally {
    await browser.close();
  }
  process.exit(faults === 0 ? 0 : 1);
}

main();
