// The funnel: a slider for every threshold, counted again while it moves; the rows at the edge; what to copy.
import { $, ask, badge, h, later, latest, percent, put, short, svg, whole } from "./dom.js";
import { cards } from "./cards.js";

let folder, moved, last, focus;

export async function show(view, info) {
  [folder, moved, last] = [info, new Map(), null];
  focus = info.sliders.at(-1) ?? null;
  put(view, 
    h("div", { class: "total", id: "total", "aria-live": "polite" }), h("div", { id: "rules" }),
    h("section", { id: "edge", "aria-label": "Rows at the edge" }), h("section", { id: "copy", "aria-label": "Copy as" }));
  draw();
  fill(stored());
  recount();
}

// What the manifests say: the funnel as it was made, exact before any ledger is read.
const stored = () => ({ kept: folder.kept, rows: folder.rows, back: 0, errors: folder.errors, exact: true, of: folder.rows, funnel: folder.funnel });

const name = (slider) => `${slider.rule}.${slider.parameter}`;
const value = (slider) => moved.get(name(slider)) ?? slider.value;
const changes = () => [...moved].map(([key, number]) => `${key}=${number}`);

function draw() {
  const lines = folder.funnel.map((line) => {
    const mine = folder.sliders.filter((slider) => slider.rule === line.rule);
    return h("div", { class: "rule", "data-rule": line.rule }, h("div", { class: "head" }),
      mine.length > 0 && h("div", { class: "sliders" }, mine.map(drawSlider)));
  });
  const names = ["rule", "rows in", "dropped", "%", "change", ""];
  const head = h("div", { class: "rule names" }, h("div", { class: "head" }, names.map((each) => h("span", {}, each))));
  put($("#rules"), head, ...lines, h("div", { class: "rule", id: "errors" }));
}

function drawSlider(slider) {
  const drawn = folder.histograms[slider.score];
  if (!drawn) return h("div", { class: "slider quiet" }, `${slider.parameter} ${slider.value}: no row has a score`);
  const step = stepOf(drawn), id = `slider-${name(slider)}`;
  const low = floor(drawn.low - step, step), high = floor(drawn.high + 2 * step, step);
  const range = h("input", { type: "range", id, min: low, max: high, step, "aria-describedby": `says-${id}` });
  const exact = h("input", { type: "number", step: "any", "aria-label": `${name(slider)}, exactly` });
  const reset = h("button", { type: "button", hidden: true, "aria-label": `reset ${name(slider)}` }, "reset");
  const plot = histogram(slider, drawn, low, high);
  const set = (number, from) => {
    if (!Number.isFinite(number)) return;
    if (number === slider.value) moved.delete(name(slider)); else moved.set(name(slider), number);
    if (from !== range) range.value = number;
    if (from !== exact) exact.value = number;
    reset.hidden = !moved.has(name(slider));
    focus = slider;
    plot.mark(number);
    recount();
  };
  range.addEventListener("input", () => set(Number(range.value), range));
  range.addEventListener("focus", () => { focus = slider; edge(); });
  exact.addEventListener("input", () => exact.value !== "" && set(Number(exact.value), exact));
  reset.addEventListener("click", () => { set(slider.value, null); range.focus(); });
  [range.value, exact.value] = [slider.value, slider.value];
  plot.mark(slider.value);
  return h("div", { class: "slider" },
    h("div", { class: "line" }, h("label", { for: id }, `${slider.parameter} (${slider.score})`), exact, reset),
    plot.element, range, h("span", { class: "quiet key", id: `says-${id}` }, `${slider.says}; made with ${short(slider.value)}`));
}

function stepOf(drawn) {
  if (drawn.whole) return 1;
  const rough = (drawn.high - drawn.low) / 200 || 0.01;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
}

const floor = (number, step) => Number((Math.floor(number / step) * step).toPrecision(12));

// Bars over the slider's own scale; those that fall are in another colour.
function histogram(slider, drawn, low, high) {
  const most = Math.max(...drawn.counts, 1), wide = (drawn.high - drawn.low) / drawn.counts.length;
  const bars = drawn.counts.map((count, i) => {
    const tall = count ? Math.max(1, 40 * Math.sqrt(count / most)) : 0;
    return svg("rect", { x: drawn.low + i * wide - low, y: 42 - tall, width: wide * 0.9, height: tall });
  });
  const line = svg("line", { y1: 0, y2: 44, "stroke-width": 1.5 });
  const falls = (i, number) => (slider.bound === "max" ? drawn.low + i * wide > number : drawn.low + (i + 1) * wide <= number);
  const mark = (number) => {
    line.setAttribute("x1", number - low);
    line.setAttribute("x2", number - low);
    bars.forEach((bar, i) => bar.classList.toggle("out", falls(i, number)));
  };
  const label = `${slider.score} of ${whole(drawn.rows)} rows, ${short(drawn.low)} to ${short(drawn.high)}`;
  const view = { viewBox: `0 0 ${high - low} 44`, preserveAspectRatio: "none", role: "img", "aria-label": label };
  return { element: svg("svg", view, bars, line), mark };
}

function fill(counted) {
  last = counted;
  const scale = counted.exact ? 1 : counted.of / Math.max(1, counted.rows);
  const before = folder.kept, now = counted.kept * scale, about = counted.exact ? "" : "about ";
  const more = now - before;
  put($("#total"), 
    h("strong", { class: "number", id: "kept" }, `${about}${whole(now)} kept`),
    h("span", {}, `of ${whole(counted.of)}, ${percent(counted.kept, counted.rows)} %`),
    moved.size > 0 && h("span", { class: more < 0 ? "down" : "up", id: "delta" }, `${more < 0 ? "−" : "+"}${whole(Math.abs(more))} against what was made`),
    counted.back > 0 && h("span", { class: "up", id: "back" }, `and up to ${about}${whole(counted.back * scale)} may come back`),
    counted.sampled !== undefined && badge(counted));
  let left = counted.rows - Object.values(counted.errors).reduce((sum, each) => sum + each, 0);
  for (const line of counted.funnel) {
    const head = $(`[data-rule="${CSS.escape(line.rule)}"] .head`);
    if (!head) continue;
    const dropped = line.dropped * scale, change = dropped - (folder.dropped[line.rule] ?? 0);
    const showing = moved.size > 0 && counted.exact && change !== 0;
    put(head, h("span", {}, line.rule), h("span", { class: "in number" }, whole(left * scale)),
      h("span", { class: "number" }, whole(dropped)), h("span", { class: "number" }, `${percent(line.dropped, left)} %`),
      h("span", { class: "number in" }, showing ? `${change > 0 ? "+" : "−"}${whole(Math.abs(change))}` : ""),
      h("span", { class: "bar" }, h("i", { style: { width: `${percent(line.dropped, left)}%` } })));
    left -= line.dropped;
  }
  const errors = Object.entries(counted.errors).map(([kind, rows]) => `${kind} ${whole(rows * scale)}`).join(" · ");
  put($("#errors"), errors ? h("span", { class: "quiet" }, `errors: ${errors}`) : "");
}

const asked = (exact) => ({ folder: folder.number, set: changes(), exact: exact ? 1 : 0 });

const count = latest(async (exact) => {
  const of = folder, found = await ask("count", asked(exact));
  if (of !== folder || !$("#total")) return;
  folder.exact = found.ready;
  if (exact || !last?.exact || moved.size) fill(found);
  if (!found.ready && !found.problem) setTimeout(() => of === folder && count(true), 700);
  if (found.ready && !found.exact) exactly();
});
const exactly = later(() => count(true), 120);

const edge = later(latest(async () => {
  const place = $("#edge"), of = folder;
  if (!focus || !place) return;
  const found = await ask("edge", { ...asked(true), rule: focus.rule, parameter: focus.parameter });
  if (of !== folder) return;
  const side = (title, rows, empty) => h("div", {}, h("h3", {}, title), cards(folder, rows, empty));
  put(place, h("h2", {}, `At the edge of ${name(focus)} `, badge(found)),
    h("p", { class: "quiet" }, moved.size ? "Nearest first; framed rows would change sides." : "Nearest first. Move a slider to see what would change sides."),
    h("div", { class: "sides" }, side("dropped by it", found.falls, "it drops none"), side("kept", found.stays, "none is left")));
}), 250);

const copied = later(latest(async () => {
  const place = $("#copy");
  if (!place) return;
  if (!moved.size) { put(place); return; }
  const text = await ask("copy", asked(true));
  put(place, h("h2", {}, "Copy as"), block("command", text.retune), block("lines of a catalog", text.catalog));
}), 200);

function block(title, text) {
  const shown = h("pre", {}, text), done = h("span", { class: "quiet", role: "status" });
  const copy = async () => {
    try { await navigator.clipboard.writeText(text); done.textContent = " copied"; }
    catch { getSelection().selectAllChildren(shown); done.textContent = " selected: copy it with the keyboard"; }
  };
  return h("div", {}, h("h3", {}, `${title} `, h("button", { type: "button", onclick: copy }, "Copy"), done), shown);
}

function recount() {
  count(Boolean(folder.exact));
  edge();
  copied();
}
