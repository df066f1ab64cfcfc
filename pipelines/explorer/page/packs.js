// Packs as the trainer sees them: decoded from the tokens, what is supervised marked, shapes drawn from the text.
import { $, ask, h, latest, put, svg, whole } from "./dom.js";

let folder, number;

export async function show(view, info) {
  [folder, number] = [info, 0];
  if (!folder.stage) { put(view, h("p", { class: "quiet" }, "This is no stage folder; packs are made by build_stage.py.")); return; }
  const tasks = h("select", { "aria-label": "task" }, Object.keys(folder.stage.tasks).map((task) => h("option", { value: task }, task)));
  const place = h("input", { type: "number", min: 0, max: folder.stage.packs - 1, value: 0, "aria-label": "pack" });
  const go = (to) => { number = Math.min(folder.stage.packs - 1, Math.max(0, Math.round(to) || 0)); place.value = number; fetchPack(); };
  place.addEventListener("change", () => go(Number(place.value)));
  tasks.addEventListener("change", () => go(folder.stage.tasks[tasks.value][0][0]));
  put(view, 
    h("div", { class: "pages" }, h("label", {}, "first of ", tasks), h("button", { type: "button", onclick: () => go(number - 1) }, "Before"),
      h("label", {}, "pack ", place, ` of ${whole(folder.stage.packs)}`), h("button", { type: "button", onclick: () => go(number + 1) }, "Next"),
      h("span", {}, h("span", { class: "on" }, "supervised"), " ", h("span", { class: "off" }, "masked"), " ", h("span", { class: "slot" }, "image slot"))),
    h("div", { id: "pack", "aria-live": "polite" }));
  if (folder.stage.packs) await fetchPack();
}

const fetchPack = latest(async () => {
  const of = number, pack = await ask("pack", { folder: folder.number, pack: of });
  if (of !== number || !$("#pack")) return;
  const used = `${whole(pack.tokens)} of ${whole(pack.max_tokens)} tokens, ${whole(pack.supervised)} supervised, ${pack.images} images`;
  put($("#pack"), h("h2", {}, `${pack.task} · ${pack.key}`), h("p", { class: "quiet" }, `${pack.samples.length} samples, ${used}`),
    h("div", { class: "pack" }, pack.samples.map((sample) => h("i", { style: { width: `${100 * sample.tokens / pack.max_tokens}%` }, title: sample.key }))),
    ...pack.samples.map((sample) => drawn(pack, sample)));
});

function drawn(pack, sample) {
  const about = `${sample.key} · ${sample.dataset} · ${sample.tokens} tokens, ${sample.supervised} supervised`;
  return h("div", { class: sample.images.length ? "sample" : "sample alone" },
    sample.images.length > 0 && h("div", {}, sample.images.map((image) => picture(pack, sample, image))),
    h("div", {}, h("div", { class: "key" }, about), sample.problems.map((each) => h("p", { class: "problem" }, `WRONG: ${each}`)),
      h("pre", { dir: "auto" }, sample.runs.map(run))));
}

function run(each) {
  if (each.image !== null) return h("span", { class: "slot" }, `image ${each.image}`);
  return h("span", { class: each.supervised ? "on" : "off" }, each.text);
}

function picture(pack, sample, image) {
  const source = `/pack-picture?${new URLSearchParams({ folder: folder.number, pack: pack.number, image })}`;
  const shapes = sample.shapes.filter((shape) => shape.image === image)
    .map((shape) => svg("polygon", { points: shape.points }, svg("title", {}, shape.label)));
  return h("span", { class: "picture" }, h("img", { src: source, alt: `image ${image}`, loading: "lazy" }),
    svg("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none" }, shapes));
}
