// Rows by any filter, as a grid of cards.
import { $, ask, badge, h, latest, put, whole } from "./dom.js";
import { cards } from "./cards.js";

const RANGES = 2;

export async function show(view, folder) {
  const option = (value, text = value) => h("option", { value }, text);
  const select = (name, options) => h("select", { name }, options);
  const rules = Object.keys(folder.dropped), errors = Object.keys(folder.errors);
  const orders = [option("row", "as they lie"), option("random")];
  for (const score of folder.scores) orders.push(option(score, `${score}, lowest first`), option(`-${score}`, `${score}, highest first`));
  const ranges = [...Array(folder.scores.length ? RANGES : 0).keys()].map((i) => h("fieldset", {},
    h("label", {}, "score", select(`score${i}`, [option("", "any"), ...folder.scores.map((each) => option(each))])),
    h("label", {}, "from", h("input", { name: `low${i}`, type: "number", step: "any" })),
    h("label", {}, "to", h("input", { name: `high${i}`, type: "number", step: "any" }))));
  const form = h("form", { class: "filter" },
    h("label", {}, "outcome", select("outcome", [option("", "any"), ...["kept", "dropped", "error"].map((each) => option(each))])),
    h("label", {}, "rule or error", select("rule", [option("", "any"), ...[...rules, ...errors].map((each) => option(each))])),
    h("label", { class: "tick" }, h("input", { name: "changed", type: "checkbox" }), "changed by a cleaner"),
    h("label", {}, "text in the ledger", h("input", { name: "text", type: "search", maxlength: 200 })), ranges,
    h("label", {}, "order", select("order", orders)), h("button", { type: "submit" }, "Show"));
  form.addEventListener("submit", (event) => { event.preventDefault(); fetchPage(folder, form, 0); });
  form.addEventListener("change", () => fetchPage(folder, form, 0));
  put(view, form, h("div", { id: "found", "aria-live": "polite" }));
  await fetchPage(folder, form, 0);
}

const fetchPage = latest(async (folder, form, page) => {
  const data = new FormData(form), given = (name) => data.get(name) || null;
  const range = [...Array(RANGES).keys()].filter((i) => given(`score${i}`))
    .map((i) => `${given(`score${i}`)}:${given(`low${i}`) ?? ""}:${given(`high${i}`) ?? ""}`);
  const asked = { folder: folder.number, outcome: given("outcome"), rule: given("rule"), changed: Boolean(given("changed")),
    text: given("text"), range, order: given("order"), page };
  await fill($("#found"), folder, asked);
});

// Fill `place` with a page of rows, and with buttons for those before and after.
export async function fill(place, folder, asked) {
  const found = await ask("rows", asked);
  if (!place?.isConnected) return;
  const turn = (to) => async () => { await fill(place, folder, { ...asked, page: to }); place.scrollIntoView(); };
  const searched = found.searched !== null && found.searched < folder.splits ? `; ${found.searched} of ${folder.splits} splits searched` : "";
  put(place, 
    h("div", { class: "pages" }, h("strong", { class: "number total-rows" }, `${whole(found.total)} rows${searched}`), badge(found)),
    cards(folder, found.cards, "no row is like that"),
    found.pages > 1 && h("div", { class: "pages" },
      h("button", { type: "button", disabled: found.page === 0, onclick: turn(found.page - 1) }, "Before"),
      h("span", { class: "number" }, `page ${whole(found.page + 1)} of ${whole(found.pages)}`),
      h("button", { type: "button", disabled: found.page + 1 >= found.pages, onclick: turn(found.page + 1) }, "Next")));
}
