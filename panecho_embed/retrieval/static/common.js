// What every page shares: elements, the API, thumbnails, keys.
import { hold, step, togglePlay } from "./players.js";

export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "class") element.className = value;
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

export function address(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== "" && value !== null && value !== undefined && value !== false) query.set(name, value);
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

export async function api(path, parameters = {}, options = {}) {
  let answer;
  try {
    answer = await fetch(address(path, parameters), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is panecho-embed serve still running?");
  }
  const body = await answer.json().catch(() => ({ detail: `The server answered ${answer.status}.` }));
  if (!answer.ok) throw Object.assign(new Error(body.detail), { status: answer.status });
  return body;
}

export function number(value) {
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
}

export function labels(values) {
  const list = el("dl", { class: "labels" });
  for (const [name, value] of Object.entries(values)) {
    if (value === null) continue;
    list.append(el("div", {}, el("dt", {}, name), el("dd", {}, number(value))));
  }
  return list;
}

// A phone's keyboard turns the quotes of a filter into curly ones; those inside straight quotes belong to the text.
export const filterOf = (field) =>
  field.value
    .trim()
    .replace(/'[^']*'|"[^"]*"|[\u2018\u2019\u201a\u201c\u201d\u201e]/g, (found) => {
      if (found.length > 1) return found;
      return "\u201c\u201d\u201e".includes(found) ? '"' : "'";
    });

function remembered(store, name, value) {
  try {
    if (value === undefined) return store.getItem(name);
    store.setItem(name, value);
  } catch {
    // A browser that keeps nothing only forgets.
  }
  return null;
}

export const listAddress = () => remembered(sessionStorage, "list") || "/";
export const keepListAddress = () => remembered(sessionStorage, "list", location.pathname + location.search);

const choice = remembered(localStorage, "moving");
let moving = choice === null ? !matchMedia("(prefers-reduced-motion: reduce)").matches : choice === "true";
// The stamp of the file that the page is of: a browser keeps pictures, and another file may have the same ids.
export const media = (kind, video) => address(`/api/${kind}`, { video, of: document.documentElement.dataset.of });
const picture = (video) => media(moving ? "thumbnail" : "still", video);

function showMotion() {
  const button = byId("motion");
  button.setAttribute("aria-pressed", String(moving));
  button.title = `${moving ? "Pictures move; press to hold them still" : "Pictures are still; press to let them move"} (p)`;
  button.textContent = moving ? "❚❚" : "▶";
}

export function toggleMotion() {
  moving = !moving;
  remembered(localStorage, "moving", String(moving));
  showMotion();
  for (const shown of document.querySelectorAll(".thumb img")) shown.src = picture(shown.dataset.video);
  hold(!moving);
}

export function thumb(video, match = null) {
  const box = el("span", { class: "thumb" });
  // The view stands beside it as text.
  const shown = el("img", { alt: video.view ? "" : "video", loading: "lazy", decoding: "async" });
  shown.dataset.video = video.video_id;
  shown.addEventListener("load", () => box.classList.add("ready"));
  shown.src = picture(video.video_id);
  shown.addEventListener("error", () => {
    box.className = "thumb gone";
    box.replaceChildren(video.view ? `${video.view}: ` : "", "video not found");
    box.title = `The file of ${video.video_id} has moved or can't be read; search works without it.`;
  });
  box.append(shown);
  if (video.view) box.append(el("span", { class: "view" }, video.view));
  if (match !== null) box.append(el("span", { class: "match", title: "similarity of this video" }, match.toFixed(3)));
  return box;
}

export const counted = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

export const videosOf = (item) =>
  item.num_failed
    ? `${item.num_failed} of ${counted(item.num_videos + item.num_failed, "video", "videos")} ${item.num_failed === 1 ? "has" : "have"} no embedding`
    : counted(item.num_videos, "video", "videos");

// keep: how studies were compared and filtered, so that the next study is looked at in the same way.
export const studyAddress = (item, keep = {}) =>
  item.level === "video"
    ? address("/study", { id: item.study_id, video: item.id, ...keep })
    : address("/study", { id: item.id, ...keep });

export function hitCard(hit, keep = {}) {
  const item = hit.item;
  const shown = item.videos.slice(0, 8);
  const more = item.num_videos - shown.length;
  return el(
    "li",
    { class: "card" },
    el(
      "header",
      {},
      el("h3", {}, el("a", { class: "name", href: studyAddress(item, keep), "data-item": "" }, item.id)),
      el("span", { class: "sr" }, "similarity"),
      el("span", { class: "similarity", title: "similarity, 1 is identical" }, hit.similarity.toFixed(4)),
    ),
    el("div", { class: "patient" }, `patient ${item.patient_id}`),
    el("div", { class: "strip" }, ...shown.map((video) => thumb(video, item.level === "study" ? video.match : null))),
    more > 0 ? el("p", { class: "count" }, `and ${counted(more, "video", "videos")} more`) : null,
    labels(item.labels),
  );
}

export function empty(...parts) {
  return el("li", { class: "empty" }, ...parts);
}

export function showError(element, error, field) {
  element.hidden = !error;
  element.textContent = error ? error.message : "";
  if (field) field.setAttribute("aria-invalid", error ? "true" : "false");
}

// Runs the newest of several requests; older answers are dropped. What `area` shows meanwhile is of an older one.
export function latest(area, run) {
  let current = null;
  return async (...given) => {
    current?.abort();
    const mine = new AbortController();
    current = mine;
    area.setAttribute("aria-busy", "true");
    try {
      await run(mine.signal, ...given);
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    } finally {
      if (mine === current) area.removeAttribute("aria-busy");
    }
  };
}

// Runs once when nothing more comes for a while; `now` does not wait, and takes the place of what waits.
export function later(run, milliseconds) {
  let timer;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => run(), milliseconds);
  };
  wait.now = () => {
    clearTimeout(timer);
    run();
  };
  return wait;
}

export async function info() {
  const facts = await api("/api/info");
  byId("file").textContent = facts.file;
  if (!facts.pretrained) {
    const banner = byId("banner");
    banner.textContent = "Random weights: similarities mean nothing.";
    banner.hidden = false;
  }
  return facts;
}

function move(direction) {
  const items = [...document.querySelectorAll("[data-item]")];
  if (!items.length) return;
  const at = items.indexOf(document.activeElement);
  const next = at < 0 ? 0 : Math.min(items.length - 1, Math.max(0, at + direction));
  // At the end of what is shown, the next page comes.
  if (at === next && direction > 0) byId("more")?.click();
  items[next].focus();
  items[next].scrollIntoView({ block: "nearest" });
}

let went = false;
document.addEventListener("keydown", (event) => {
  const field = event.target.closest("input, select, textarea, [role=application]");
  if (event.key === "Escape" && field) field.blur();
  if (field || event.ctrlKey || event.metaKey || event.altKey) return;
  const places = { s: "/", m: "/map", u: "/upload" };
  if (went && places[event.key]) {
    location.href = places[event.key];
    return;
  }
  went = event.key === "g";
  const onButton = event.target.closest("button, a, video, summary");
  const actions = {
    "/": () => (byId("q") || byId("where"))?.focus(),
    "?": () => byId("keys").showModal(),
    j: () => move(1),
    ArrowDown: () => move(1),
    k: () => move(-1),
    ArrowUp: () => move(-1),
    p: toggleMotion,
    ",": () => step(-1),
    ".": () => step(1),
  };
  if (event.key === " " && document.querySelector("video") && !onButton) actions[" "] = togglePlay;
  if (!actions[event.key] || byId("keys").open) return;
  if (event.key.startsWith("Arrow") && !document.querySelector("[data-item]")) return;
  event.preventDefault();
  actions[event.key]();
});
byId("help").addEventListener("click", () => byId("keys").showModal());
byId("motion").addEventListener("click", toggleMotion);
hold(!moving);
showMotion();
