// Rows as cards, and one row as a dialog.
import { $, h, put, short, svg } from "./dom.js";

export function cards(folder, found, empty = "no rows") {
  if (!found.length) return h("p", { class: "quiet" }, empty);
  return h("div", { class: "cards" }, found.map((card) => one(folder, card)));
}

function one(folder, card) {
  const row = card.ledger;
  return h("button", { type: "button", class: card.moves ? "card moves" : "card", onclick: () => detail(folder, card) },
    picture(folder, card, false), texts(card, "clip"), verdict(row), card.moves && h("span", { class: "after" }, row.outcome === "kept" ? "would go" : "may come back"), h("span", { class: "key" }, row.key));
}

function picture(folder, card, large) {
  if (!card.images && card.ledger.outcome === "kept") return null;
  const source = (image) => `/picture?${new URLSearchParams({ folder: folder.number, split: card.split, at: card.at, image })}`;
  const numbers = [...Array(large ? Math.max(1, card.images) : 1).keys()];
  return h("span", { class: "shown" }, numbers.map((number) => {
    const image = h("img", { src: source(number) + (large ? "&large=1" : ""), alt: `picture ${number + 1}`, loading: "lazy" });
    const shown = h("span", { class: "picture", style: card.width && number === 0 ? frame(card, large) : {} }, image, number === 0 && shapes(card));
    image.addEventListener("error", () => shown.replaceWith(h("span", { class: "quiet" }, large ? "no picture is kept here" : "")));
    return shown;
  }));
}

// A frame of the picture's own shape, so that what is drawn over it lies where it should.
function frame({ width, height }, large) {
  return { aspectRatio: `${width} / ${height}`, width: `min(100%, calc(${large ? "70vh" : "180px"} * ${width / height}))` };
}

function shapes(card) {
  if (!card.shapes.length || !card.width) return null;
  const drawn = card.shapes.map((shape) => svg("polygon", { points: shape.points }, svg("title", {}, shape.label)));
  return svg("svg", { viewBox: `0 0 ${card.width} ${card.height}`, preserveAspectRatio: "none" }, drawn);
}

function texts(card, kind) {
  const row = card.ledger, changed = row.text_after !== null && row.text_after !== undefined;
  if (changed) {
    return h("span", {}, text(row.text_before, `${kind} before`), text(row.text_after, `${kind} after`));
  }
  const said = card.text ?? row.text_before;
  return said === null || said === undefined ? null : text(said, kind);
}

const text = (said, kind) => h("span", { class: `text ${kind}`, dir: "auto" }, said ?? "");

function verdict(row) {
  const measured = row.value === null || row.value === undefined ? "" : ` ${short(row.value)}`;
  const against = row.threshold === null || row.threshold === undefined ? "" : ` (threshold ${short(row.threshold)})`;
  const said = row.outcome === "kept" ? "kept" : `${row.outcome === "error" ? "error: " : ""}${row.rule}${measured}${against}`;
  return h("span", { class: row.outcome === "kept" ? "why kept" : "why" }, said);
}

export function detail(folder, card) {
  const dialog = $("#detail");
  const close = h("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const values = Object.entries(card.ledger).filter(([, value]) => value !== null);
  const names = card.shapes.filter((shape) => shape.label).map((shape) => shape.label);
  put(dialog, 
    h("div", { class: "top" }, h("h2", {}, card.ledger.key), close),
    h("div", { class: "shown" },
      h("div", {}, picture(folder, card, true), texts(card, ""), card.problem && h("p", { class: "problem" }, card.problem),
        names.length > 0 && h("p", { class: "quiet" }, `${card.shapes.length} shapes: ${names.slice(0, 40).join(" · ")}`)),
      h("div", {}, verdict(card.ledger), h("table", {}, h("tbody", {}, values.map(([name, value]) =>
        h("tr", {}, h("th", { scope: "row" }, name), h("td", { dir: "auto" }, typeof value === "number" ? short(value) : String(value)))),
      h("tr", {}, h("th", { scope: "row" }, "split"), h("td", {}, card.name)))))));
  dialog.showModal();
}
