import { address, api, byId, counted, el, info, number, showError, thumb } from "./common.js";

const controls = byId("controls");
const canvas = byId("map");
const tip = byId("tip");
const context = canvas.getContext("2d");
const CATEGORIES = ["#e3b25b", "#6fb7ff", "#7fd6a2", "#ff9a8b", "#c7a1ff", "#5fd4d6", "#f2a1cf", "#c3d36b", "#a9b4bf", "#d78d55"];
// Viridis, thinned out: even steps of lightness, safe for colour-blind readers.
const RAMP = ["#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const MISSING = "#4a545e";

let points = null;
let colours = [];
let view = { x: 0, y: 0, scale: 1 };
let hovered = -1;

const hex = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
function ramp(share) {
  const at = Math.min(RAMP.length - 1.001, Math.max(0, share * (RAMP.length - 1)));
  const [low, high] = [hex(RAMP[Math.floor(at)]), hex(RAMP[Math.floor(at) + 1])];
  return `rgb(${low.map((value, i) => Math.round(value + (high[i] - value) * (at % 1))).join(" ")})`;
}

function colour(values) {
  const legend = byId("legend");
  legend.replaceChildren();
  const there = values.filter((value) => value !== null);
  if (!there.length) return points.ids.map(() => CATEGORIES[0]);
  const entry = (colour, text) => {
    const dot = el("i");
    dot.style.background = colour;
    return el("div", {}, dot, text);
  };
  const missing = values.length > there.length ? entry(MISSING, `no value (${values.length - there.length})`) : "";
  if (typeof there[0] === "number") {
    const low = there.reduce((a, b) => Math.min(a, b));
    const high = there.reduce((a, b) => Math.max(a, b));
    const bar = el("canvas", { width: 90, height: 1 });
    const paint = bar.getContext("2d");
    for (let i = 0; i < 90; i++) {
      paint.fillStyle = ramp(i / 89);
      paint.fillRect(i, 0, 1, 1);
    }
    legend.append(bar, el("div", { class: "ends" }, el("span", {}, number(low)), el("span", {}, number(high))), missing);
    return values.map((value) => (value === null ? MISSING : ramp(high > low ? (value - low) / (high - low) : 0.5)));
  }
  const counts = new Map();
  for (const value of there) counts.set(value, (counts.get(value) || 0) + 1);
  const names = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)).slice(0, CATEGORIES.length);
  const chosen = new Map(names.sort().map((name, i) => [name, CATEGORIES[i]]));
  for (const [name, value] of chosen) legend.append(entry(value, `${name} (${counts.get(name)})`));
  if (counts.size > names.length) legend.append(entry(MISSING, `${counted(counts.size - names.length, "value", "values")} more`));
  legend.append(missing);
  return values.map((value) => chosen.get(value) || MISSING);
}

const radius = () => Math.max(1.5, Math.min(5, 260 / Math.sqrt(points.ids.length + 1)));
const screenX = (i) => (points.x[i] - view.x) * view.scale + canvas.clientWidth / 2;
const screenY = (i) => (view.y - points.y[i]) * view.scale + canvas.clientHeight / 2;

let waiting = false;
function draw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    paint();
  });
}

function placeTip() {
  const x = Math.min(Math.max(8, screenX(hovered) + 14), canvas.clientWidth - 190);
  const y = Math.min(Math.max(8, screenY(hovered) + 14), canvas.clientHeight - 205);
  tip.style.transform = `translate(${x}px, ${Math.max(8, y)}px)`;
  tip.style.left = tip.style.top = "0";
}

function paint() {
  const density = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * density;
  canvas.height = canvas.clientHeight * density;
  if (!points) return;
  context.scale(density, density);
  const size = radius();
  context.globalAlpha = points.ids.length > 5000 ? 0.7 : 0.9;
  for (let i = 0; i < points.ids.length; i++) {
    context.fillStyle = colours[i];
    context.beginPath();
    context.arc(screenX(i), screenY(i), size, 0, 2 * Math.PI);
    context.fill();
  }
  if (hovered >= 0) {
    placeTip();
    context.globalAlpha = 1;
    context.strokeStyle = "#fff";
    context.lineWidth = 2;
    context.beginPath();
    context.arc(screenX(hovered), screenY(hovered), size + 4, 0, 2 * Math.PI);
    context.stroke();
  }
}

function fit() {
  const bounds = (values) => [values.reduce((a, b) => Math.min(a, b), Infinity), values.reduce((a, b) => Math.max(a, b), -Infinity)];
  const [left, right] = bounds(points.x);
  const [bottom, top] = bounds(points.y);
  const scale = Math.min(canvas.clientWidth / (right - left || 1), canvas.clientHeight / (top - bottom || 1)) * 0.86;
  view = { x: (left + right) / 2, y: (bottom + top) / 2, scale };
}

function whole() {
  if (!points?.ids.length) return;
  fit();
  draw();
}

function nearest(x, y, limit) {
  let best = -1;
  let smallest = limit * limit;
  for (let i = 0; i < points.ids.length; i++) {
    const distance = (screenX(i) - x) ** 2 + (screenY(i) - y) ** 2;
    if (distance < smallest) [best, smallest] = [i, distance];
  }
  return best;
}

function point(i) {
  if (i === hovered) return;
  hovered = i;
  tip.hidden = i < 0;
  canvas.style.cursor = i < 0 ? "grab" : "pointer";
  if (i >= 0) {
    const value = points.values[i];
    const label = controls.color.value && value !== null && value !== undefined ? `${controls.color.value} ${number(value)}` : "";
    tip.replaceChildren(
      ...(points.level === "video" ? [thumb({ video_id: points.ids[i], view: "" })] : []),
      el("div", { class: "name" }, points.ids[i]),
      el("div", { class: "patient" }, label),
    );
  }
  draw();
}

function open(i) {
  if (i >= 0) location.href = address("/study", { id: points.studies[i] });
}

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const [dx, dy] = [x - canvas.clientWidth / 2, y - canvas.clientHeight / 2];
  view.x += (dx / view.scale) * (1 - 1 / factor);
  view.y -= (dy / view.scale) * (1 - 1 / factor);
  view.scale *= factor;
  draw();
}

const touches = new Map();
let moved = 0;
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  touches.set(event.pointerId, event);
  moved = 0;
});
canvas.addEventListener("pointermove", (event) => {
  if (!points) return;
  const before = touches.get(event.pointerId);
  if (!before) {
    point(nearest(event.offsetX, event.offsetY, 14));
    return;
  }
  const other = [...touches.values()].find((touch) => touch.pointerId !== event.pointerId);
  if (other) {
    const distance = (a) => Math.hypot(a.offsetX - other.offsetX, a.offsetY - other.offsetY) || 1;
    zoom(distance(event) / distance(before), (event.offsetX + other.offsetX) / 2, (event.offsetY + other.offsetY) / 2);
  } else {
    const [dx, dy] = [event.offsetX - before.offsetX, event.offsetY - before.offsetY];
    view.x -= dx / view.scale;
    view.y += dy / view.scale;
    moved += Math.hypot(dx, dy);
    draw();
  }
  touches.set(event.pointerId, event);
});
const release = (event) => {
  const pressed = touches.delete(event.pointerId);
  if (event.type === "pointerup" && pressed && points && moved < 5) {
    const i = nearest(event.offsetX, event.offsetY, event.pointerType === "touch" ? 26 : 14);
    // A finger can't hover: its first tap shows a point, its second opens it.
    if (event.pointerType === "touch" && i !== hovered) point(i);
    else open(i);
  }
};
canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * 0.0015), event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  if (!points?.ids.length) return;
  const directions = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.key === "Enter") open(hovered);
  else if (event.key === "+" || event.key === "=") zoom(1.3);
  else if (event.key === "-") zoom(1 / 1.3);
  else if (event.key === "0") whole();
  else if (directions[event.key]) {
    event.preventDefault();
    if (hovered < 0) return point(nearest(canvas.clientWidth / 2, canvas.clientHeight / 2, Infinity));
    const [dx, dy] = directions[event.key];
    let best = -1;
    let smallest = Infinity;
    for (let i = 0; i < points.ids.length; i++) {
      const [x, y] = [screenX(i) - screenX(hovered), screenY(i) - screenY(hovered)];
      const along = x * dx + y * dy;
      const cost = along + 2 * Math.abs(x * dy - y * dx);
      if (i !== hovered && along > 0.5 && cost < smallest) [best, smallest] = [i, cost];
    }
    if (best >= 0) point(best);
  }
});
byId("in").addEventListener("click", () => zoom(1.5));
byId("out").addEventListener("click", () => zoom(1 / 1.5));
byId("whole").addEventListener("click", whole);
new ResizeObserver(draw).observe(byId("frame"));

let turn = 0;
async function load(keepView) {
  const mine = ++turn;
  const method = controls.method.value;
  const column = controls.color.value;
  history.replaceState(null, "", address("/map", { method, color: column }));
  try {
    // Points and values are large; each is asked for only when it is another.
    const found = points?.method === method ? points : await api("/api/map", { method });
    if (mine !== turn) return;
    showError(byId("error"), found.state === "failed" ? new Error(found.message) : null);
    if (found.state === "computing") {
      byId("count").textContent = "UMAP is being computed once; this page shows it when it is there.";
      setTimeout(() => mine === turn && load(keepView), 1500);
      return;
    }
    const known = !column || points?.column === column;
    const coloured = known ? { column, values: column ? points.values : [] } : await api("/api/map/values", { column });
    if (mine !== turn) return;
    point(-1);
    points = { ...found, ...coloured };
    colours = colour(points.values.length ? points.values : points.ids.map(() => null));
    byId("count").textContent = `${found.ids.length.toLocaleString("en")} ${found.level === "video" ? "videos" : "studies"}`;
    if (!keepView) fit();
    draw();
  } catch (error) {
    if (mine !== turn) return;
    byId("count").textContent = "";
    showError(byId("error"), error);
  }
}

controls.method.addEventListener("change", () => load(false));
controls.color.addEventListener("change", () => load(true));
controls.addEventListener("submit", (event) => event.preventDefault());

try {
  const facts = await info();
  const parameters = new URLSearchParams(location.search);
  controls.color.append(el("option", { value: "" }, "none"));
  for (const column of facts.columns) {
    if (column.name !== "video_id") controls.color.append(el("option", { value: column.name }, column.name));
  }
  const names = facts.columns.map((column) => column.name);
  const views = facts.columns.find((column) => column.name === "view")?.values.length > 1;
  controls.method.value = parameters.get("method") || "pca";
  controls.color.value = names.includes(parameters.get("color")) ? parameters.get("color") : views ? "view" : "";
  await load(false);
} catch (error) {
  showError(byId("error"), error);
}
