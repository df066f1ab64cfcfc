// Elements, requests, numbers. Whatever comes from data is put in as text, never as markup.

export const $ = (selector, root = document) => root.querySelector(selector);
const SVG = "http://www.w3.org/2000/svg";

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...shown(children));
  return element;
}

const shown = (children) => children.flat().filter((child) => child !== null && child !== undefined && child !== false);

// Put children in the place of those that an element has.
export const put = (element, ...children) => element.replaceChildren(...shown(children));

export const h = (tag, properties, ...children) => filled(document.createElement(tag), properties, children);
export const svg = (tag, properties, ...children) => filled(document.createElementNS(SVG, tag), properties, children);

export async function ask(what, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== false) query.append(name, each === true ? "1" : each);
    }
  }
  const response = await fetch(`/api/${what}?${query}`);
  if (!response.ok) throw new Error(await reason(response));
  say("");
  return response.json();
}

async function reason(response) {
  const text = await response.text();
  try { return JSON.parse(text).error; } catch { return text || `status ${response.status}`; }
}

export function say(problem) {
  const line = $("#problem");
  line.hidden = !problem;
  line.textContent = problem;
}

// One request at a time; of those that come meanwhile only the last is sent.
export function latest(run) {
  let busy = false, next = null;
  return async function call(...given) {
    if (busy) { next = given; return; }
    busy = true;
    try { await run(...given); } catch (error) { say(error.message); }
    busy = false;
    if (next) { const waiting = next; next = null; call(...waiting); }
  };
}

export function later(run, milliseconds) {
  let timer = 0;
  return (...given) => { clearTimeout(timer); timer = setTimeout(run, milliseconds, ...given); };
}

export const whole = (number) => Math.round(number).toLocaleString("en");
export const short = (number) => Number(Number(number).toPrecision(4)).toString();
export const percent = (part, all) => (all ? (100 * part / all).toFixed(part && part < all / 1000 ? 2 : 1) : "0.0");

export function badge(counted) {
  if (counted.exact) return h("span", { class: "badge exact" }, `exact: all ${whole(counted.of)} rows`);
  const read = counted.problem ? counted.problem
    : counted.ready ? "counting" : `reading, ${percent(counted.read, counted.of)} %`;
  return h("span", { class: "badge sample" }, `sample: ${whole(counted.sampled)} of ${whole(counted.of)} rows (${read})`);
}
