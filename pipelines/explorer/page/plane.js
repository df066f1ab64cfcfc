// Two scores against each other; what is brushed is shown as rows.
import { $, ask, badge, h, latest, put, short, whole } from "./dom.js";
import { fill } from "./rows.js";

const SIZE = 480;
let folder, form, cells, drag, zoomed;

export async function show(view, info) {
  [folder, zoomed] = [info, {}];
  const scores = folder.scores.filter((each) => folder.histograms[each]);
  if (scores.length < 2) { put(view, h("p", { class: "quiet" }, "This folder's ledger has fewer than two scores.")); return; }
  const option = (value) => h("option", { value }, value);
  const axis = (name, chosen) => {
    const select = h("select", { name }, scores.map(option));
    select.value = chosen;
    return h("label", {}, name, select);
  };
  const number = (name, text) => h("label", {}, text, h("input", { name, type: "number", step: "any" }));
  const outcomes = h("select", { name: "outcome" }, h("option", { value: "" }, "any"), ["kept", "dropped", "error"].map(option));
  form = h("form", { class: "filter" }, axis("x", scores.at(-1)), axis("y", scores.at(-2)), h("label", {}, "outcome", outcomes),
    number("x0", "x from"), number("x1", "x to"), number("y0", "y from"), number("y1", "y to"),
    h("button", { type: "button", onclick: zoom }, "Zoom"), h("button", { type: "reset" }, "Clear"));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => { zoomed = {}; setTimeout(refresh); });
  form.addEventListener("change", (event) => {
    if (["x", "y"].includes(event.target.name)) zoomed = {};
    if (["x", "y"].includes(event.target.name)) for (const each of ["x0", "x1", "y0", "y1"]) form.elements[each].value = "";
    refresh();
  });
  const canvas = h("canvas", { width: SIZE, height: SIZE, role: "img" });
  canvas.addEventListener("pointerdown", (event) => { drag = at(canvas, event); canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => { if (drag) brush(drag, at(canvas, event)); });
  canvas.addEventListener("pointerup", () => { if (drag) { drag = null; selected(); } });
  put(view, form, h("div", { class: "plane" },
    h("div", { class: "axis y", id: "y-axis" }), canvas, h("span", {}), h("div", { class: "axis", id: "x-axis" })),
  h("p", { class: "quiet", id: "plane-says" }), h("p", { class: "quiet" }, "Drag over the plane, or type from and to, for the rows inside."),
  h("div", { id: "brushed" }));
  await refresh();
}

const range = (axis) => zoomed[axis] ?? folder.histograms[form.elements[axis].value];

// Let the axes run over what is brushed alone.
function zoom() {
  for (const axis of ["x", "y"]) {
    const [low, high] = [0, 1].map((end) => form.elements[`${axis}${end}`].value);
    const { low: least, high: most } = range(axis);
    zoomed = { ...zoomed, [axis]: { low: low === "" ? least : Number(low), high: high === "" ? most : Number(high) } };
  }
  refresh();
}
const filter = () => ({ folder: folder.number, outcome: form.elements.outcome.value || null });

const refresh = latest(async () => {
  const asked = { ...filter() };
  for (const axis of ["x", "y"]) Object.assign(asked, { [axis]: form.elements[axis].value, [`${axis}_low`]: range(axis).low, [`${axis}_high`]: range(axis).high });
  const found = await ask("plane", asked);
  if (!$("#plane-says")) return;
  cells = found;
  const inside = found.cells.reduce((sum, cell) => sum + cell[2], 0);
  put($("#plane-says"), `${whole(inside)} rows, ${whole(found.outside)} more beyond the axes `, badge(found));
  for (const axis of ["x", "y"]) {
    const { low, high } = range(axis);
    put($(`#${axis}-axis`), ...[short(low), form.elements[axis].value, short(high)].map((each) => h("span", {}, each)));
  }
  $("canvas").setAttribute("aria-label", `${form.elements.y.value} by ${form.elements.x.value}: ${whole(inside)} rows`);
  draw();
  await rows();
});

function draw() {
  const canvas = $("canvas"), pen = canvas.getContext("2d"), side = SIZE / cells.side;
  const most = Math.max(1, ...cells.cells.map((cell) => cell[2]));
  pen.clearRect(0, 0, SIZE, SIZE);
  pen.fillStyle = colour("--mark");
  for (const [x, y, number] of cells.cells) {
    pen.globalAlpha = 0.12 + 0.88 * Math.log1p(number) / Math.log1p(most);
    pen.fillRect(x * side, SIZE - (y + 1) * side, side, side);
  }
  pen.globalAlpha = 1;
  const box = ["x0", "x1", "y0", "y1"].map((each) => form.elements[each].value);
  if (box.every((each) => each === "")) return;
  const place = (axis, value, otherwise) => (value === "" ? otherwise : SIZE * (value - range(axis).low) / (range(axis).high - range(axis).low));
  const [x0, x1, y0, y1] = [place("x", box[0], 0), place("x", box[1], SIZE), place("y", box[2], 0), place("y", box[3], SIZE)];
  pen.strokeStyle = colour("--gone");
  pen.lineWidth = 2;
  pen.strokeRect(x0, SIZE - y1, x1 - x0, y1 - y0);
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Where a pointer is, as the two scores there.
function at(canvas, event) {
  const box = canvas.getBoundingClientRect(), inside = (part) => Math.min(1, Math.max(0, part));
  const [x, y] = [inside((event.clientX - box.left) / box.width), inside(1 - (event.clientY - box.top) / box.height)];
  return [range("x").low + x * (range("x").high - range("x").low), range("y").low + y * (range("y").high - range("y").low)];
}

function brush(from, to) {
  ["x", "y"].forEach((axis, i) => {
    form.elements[`${axis}0`].value = short(Math.min(from[i], to[i]));
    form.elements[`${axis}1`].value = short(Math.max(from[i], to[i]));
  });
  draw();
}

const selected = latest(() => rows());

async function rows() {
  const values = ["x0", "x1", "y0", "y1"].map((each) => form.elements[each].value);
  const brushed = $("#brushed");
  if (values.every((each) => each === "")) { put(brushed); return; }
  const ranges = ["x", "y"].map((axis, i) => `${form.elements[axis].value}:${values[2 * i]}:${values[2 * i + 1]}`);
  await fill(brushed, folder, { ...filter(), range: ranges, order: "random" });
}
