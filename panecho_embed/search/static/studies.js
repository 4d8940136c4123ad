import { api, byId, el, empty, info, labels, later, latest, showError, studyAddress, thumb } from "./common.js";

const PAGE = 40;
const controls = byId("controls");
const rows = byId("rows");
const parameters = new URLSearchParams(location.search);
let descending = parameters.get("descending") === "true";
let shown = 0;

function row(item) {
  const strip = el("span", { class: "strip" }, ...item.videos.slice(0, 6).map((video) => thumb(video)));
  const name = el(
    "span",
    {},
    el("div", { class: "name" }, item.id),
    el("div", { class: "patient" }, `${item.patient_id} · ${item.num_videos === 1 ? "1 video" : `${item.num_videos} videos`}`),
  );
  return el("li", {}, el("a", { class: "row", href: studyAddress(item), "data-item": "" }, name, strip, labels(item.labels)));
}

const load = latest(rows, async (signal, more = false) => {
  const wanted = { q: controls.q.value.trim(), where: controls.where.value.trim(), sort: controls.sort.value, descending };
  history.replaceState(null, "", `?${new URLSearchParams(Object.entries(wanted).filter(([, value]) => value))}`);
  try {
    const offset = more ? shown : 0;
    const listing = await api("/api/studies", { ...wanted, offset, limit: PAGE }, { signal });
    if (!more) rows.replaceChildren();
    rows.append(...listing.items.map(row));
    shown = offset + listing.items.length;
    byId("count").textContent = `${listing.total.toLocaleString("en")} ${listing.total === 1 ? "study" : "studies"}`;
    byId("more").hidden = shown >= listing.total;
    if (!listing.total) rows.append(empty("No study matches. Loosen the search or the filter."));
    showError(byId("where-error"), null, controls.where);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    rows.replaceChildren();
    byId("count").textContent = "";
    byId("more").hidden = true;
    showError(byId("where-error"), error, wanted.where ? controls.where : null);
  }
});

controls.addEventListener("input", later(() => load()));
controls.addEventListener("submit", (event) => {
  event.preventDefault();
  load();
});
byId("order").addEventListener("click", () => {
  descending = !descending;
  turn();
  load();
});
byId("more").addEventListener("click", () => load(true));

function turn() {
  byId("order").textContent = descending ? "↓" : "↑";
  byId("order").setAttribute("aria-pressed", String(descending));
}

try {
  const facts = await info();
  for (const column of facts.columns) {
    if (!["video_id", "num_frames", "fps"].includes(column.name)) {
      controls.sort.append(el("option", { value: column.name }, column.name));
    }
    const plain = /^[A-Za-z_]\w*$/.test(column.name) ? column.name : `\`${column.name}\``;
    if (column.kind === "number" && column.low !== null && !["num_frames", "fps"].includes(column.name)) {
      byId("examples").append(el("option", { value: `${plain} < ${Math.round((column.low + column.high) / 2)}` }));
    } else if (column.kind === "text" && column.values.length > 1) {
      byId("examples").append(el("option", { value: `${plain} == '${column.values[0]}'` }));
    }
  }
} catch (error) {
  showError(byId("where-error"), error);
}
controls.q.value = parameters.get("q") || "";
controls.where.value = parameters.get("where") || "";
controls.sort.value = parameters.get("sort") || "";
turn();
await load();
