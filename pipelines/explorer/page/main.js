// Which folder, which view. Both stand in the address, so that back, forward and reload work.
import { $, ask, h, latest, percent, say, whole } from "./dom.js";
import * as funnel from "./funnel.js";
import * as packs from "./packs.js";
import * as plane from "./plane.js";
import * as rows from "./rows.js";

const VIEWS = { funnel, rows, plane, packs };
let folder = null;

function wanted() {
  const given = new URLSearchParams(location.hash.slice(1));
  return { number: Number(given.get("folder") ?? 0), view: given.get("view") ?? "" };
}

function go(change) {
  const { number, view } = { ...wanted(), ...change };
  location.hash = new URLSearchParams({ folder: number, ...(view && { view }) });
}

const open = latest(async () => {
  const { number, view } = wanted();
  if (folder?.number !== number) {
    folder = await ask("folder", { folder: number });
    $("#folder").value = number;
  }
  const shown = VIEWS[view] ? view : folder.stage ? "packs" : "funnel";
  $("#about").textContent = `${folder.job}, ${whole(folder.rows)} rows in ${whole(folder.splits)} splits, ${percent(folder.kept, folder.rows)} % kept`;
  document.title = `${folder.dataset}: ${shown}`;
  for (const button of document.querySelectorAll("[data-view]")) {
    button.toggleAttribute("aria-current", button.dataset.view === shown);
    if (button.dataset.view === "packs") button.disabled = !folder.stage;
  }
  await VIEWS[shown].show($("#view"), { ...folder });
});

async function start() {
  history.replaceState(null, "", `/${location.hash}`);  // the token stands in the cookie now
  const { folders } = await ask("folders");
  $("#folder").append(...folders.map((each) => h("option", { value: each.number }, `${each.dataset} (${each.job}) ${each.path}`)));
  $("#folder").addEventListener("change", (event) => go({ number: event.target.value, view: "" }));
  for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => go({ view: button.dataset.view }));
  $("#detail").addEventListener("click", (event) => { if (event.target === event.currentTarget) event.currentTarget.close(); });
  addEventListener("hashchange", open);
  await open();
}

start().catch((error) => say(error.message));
