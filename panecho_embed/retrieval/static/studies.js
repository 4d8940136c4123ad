import {
  api, byId, counted, el, empty, filterOf, info, keepListAddress, labels, later, latest, showError, studyAddress, thumb, videosOf,
} from "./common.js";

const PAGE = 40;
const MOST = 200;
// Columns of more values are not shown value by value.
const FACETS = 8;
const controls = byId("controls");
const rows = byId("rows");
const parameters = new URLSearchParams(location.search);
let descending = parameters.get("descending") === "true";
let shown = 0;

function row(item) {
  const hidden = item.num_videos - 6;
  const strip = el("div", { class: "strip" }, ...item.videos.slice(0, 6).map((video) => thumb(video)));
  if (hidden > 0) strip.append(el("span", { class: "rest" }, `+${hidden}`));
  const who = el(
    "div",
    { class: "who" },
    el("h2", {}, el("a", { class: "name", href: studyAddress(item), "data-item": "" }, item.id)),
    el("div", { class: "patient" }, `${item.patient_id} · ${videosOf(item)}`),
  );
  return el("li", { class: "row" }, who, strip, labels(item.labels));
}

const load = latest(rows, async (signal, more = false, atLeast = PAGE) => {
  const wanted = {
    q: controls.q.value.trim(), where: filterOf(controls.where), sort: controls.sort.value, descending,
  };
  const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value)).toString();
  for (const one of document.querySelectorAll("[data-clause]")) {
    one.setAttribute("aria-pressed", String(clauses().includes(one.dataset.clause)));
  }
  history.replaceState(history.state, "", query ? `?${query}` : location.pathname);
  keepListAddress();
  try {
    const offset = more ? shown : 0;
    const listing = await api("/api/studies", { ...wanted, offset, limit: Math.min(MOST, atLeast) }, { signal });
    if (!more) rows.replaceChildren();
    rows.append(...listing.items.map(row));
    shown = offset + listing.items.length;
    byId("count").textContent = counted(listing.total, "study", "studies");
    byId("more").hidden = shown >= listing.total;
    byId("more").textContent = `Show more (${(listing.total - shown).toLocaleString("en")} left)`;
    if (!listing.total) {
      const clear = el("button", { type: "button" }, "Show all studies");
      clear.addEventListener("click", () => {
        controls.q.value = controls.where.value = "";
        load();
        controls.q.focus();
      });
      rows.append(empty("No study matches the search and the filter. ", clear));
    }
    rows.classList.remove("stale");
    showError(byId("where-error"), null, controls.where);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // What was found before stays, dimmed: a filter that is being typed can't be read yet.
    rows.classList.add("stale");
    byId("count").textContent = "";
    byId("more").hidden = true;
    showError(byId("where-error"), error, wanted.where ? controls.where : null);
  }
});

const soon = later(load, 300);
controls.addEventListener("input", soon);
controls.addEventListener("submit", (event) => {
  event.preventDefault();
  soon.now();
});
byId("order").addEventListener("click", () => {
  descending = !descending;
  turn();
  load();
});
byId("more").addEventListener("click", () => load(true));
// Back from a study, the list stands where it was left.
addEventListener("pagehide", () => history.replaceState({ shown, y: scrollY }, ""));

function turn() {
  byId("order").textContent = descending ? "↓" : "↑";
  byId("order").setAttribute("aria-pressed", String(descending));
}

const clauses = () => controls.where.value.split(" and ").map((one) => one.trim()).filter(Boolean);
const named = (column) => (/^[A-Za-z_]\w*$/.test(column.name) ? column.name : `\`${column.name}\``);

// A value's chip picks it, instead of another of its column; pressed again, it lets go.
function facets(column) {
  if (column.values.length < 2 || column.values.length > FACETS) return [];
  return column.values.filter((value) => !value.includes("'")).map((value) => {
    const start = `${named(column)} == `;
    const clause = `${start}'${value}'`;
    const made = el("button", { type: "button", class: "chip", title: `Only ${clause}` }, `${column.name}: ${value}`);
    made.dataset.clause = clause;
    made.addEventListener("click", () => {
      const others = clauses().filter((one) => !one.startsWith(start));
      controls.where.value = [...others, ...(clauses().includes(clause) ? [] : [clause])].join(" and ");
      load();
    });
    return made;
  });
}

function example(column) {
  const name = named(column);
  if (column.kind === "number") return column.low === null ? "" : `${name} < ${Math.round((column.low + column.high) / 2)}`;
  const value = column.values.find((one) => !one.includes("'"));
  return value === undefined ? "" : `${name} == '${value}'`;
}

// A column's chip adds a comparison to the filter, to be changed.
function chip(column) {
  const text = example(column);
  const made = el("button", { type: "button", class: "chip", title: `Add ${text}` }, column.name);
  made.addEventListener("click", () => {
    const before = controls.where.value.trim();
    controls.where.value = before ? `${before} and ${text}` : text;
    controls.where.focus();
    load();
  });
  return made;
}

try {
  const facts = await info();
  for (const column of facts.columns) {
    if (["video_id", "num_frames", "fps"].includes(column.name)) continue;
    controls.sort.append(el("option", { value: column.name }, column.name));
    if (example(column)) byId("chips").append(chip(column), ...facets(column));
  }
  if (facts.has_videos) controls.sort.append(el("option", { value: "videos" }, "number of videos"));
  byId("columns").hidden = !byId("chips").childElementCount;
  byId("notes").textContent = facts.notes.join("; ");
  byId("notes").hidden = !facts.notes.length;
} catch (error) {
  showError(byId("where-error"), error);
}
controls.q.value = parameters.get("q") || "";
controls.where.value = parameters.get("where") || "";
controls.sort.value = parameters.get("sort") || "";
turn();
const left = history.state;
await load(false, Math.max(PAGE, left?.shown || 0));
if (left?.y) scrollTo(0, left.y);
