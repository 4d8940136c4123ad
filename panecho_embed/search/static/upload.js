import { api, byId, empty, hitCard, info, showError } from "./common.js";

const drop = byId("drop");
const input = byId("file-input");
const controls = byId("controls");
let limit = Infinity;
let last = null;

async function send(file) {
  if (!file) return;
  last = file;
  showError(byId("error"), null);
  byId("hits").replaceChildren();
  byId("preview").hidden = true;
  if (file.size > limit) {
    showError(byId("error"), new Error(`${file.name} has ${(file.size / 2 ** 20).toFixed(0)} MB; at most ${(limit / 2 ** 20).toFixed(0)} MB are taken.`));
    return;
  }
  byId("drop-text").textContent = file.name;
  byId("count").textContent = "Embedding it; the first one takes longer, the model is loaded.";
  drop.setAttribute("aria-busy", "true");
  try {
    const found = await api(
      "/api/search",
      { name: file.name, level: controls.level.value, where: controls.where.value.trim(), k: 12 },
      { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } },
    );
    const preview = byId("preview");
    preview.querySelector("img").src = found.preview;
    preview.querySelector("figcaption").textContent = [file.name, ...found.notes].join("; ");
    preview.hidden = false;
    byId("hits").replaceChildren(...found.hits.map(hitCard));
    if (!found.hits.length) byId("hits").append(empty("Nothing matches the filter."));
    byId("count").textContent = `The nearest of ${found.candidates} ${found.level === "study" ? "studies" : "videos"}${found.note ? `; ${found.note}` : ""}`;
  } catch (error) {
    byId("count").textContent = "";
    showError(byId("error"), error);
  } finally {
    drop.removeAttribute("aria-busy");
    input.value = "";
  }
}

input.addEventListener("change", () => send(input.files[0]));
controls.addEventListener("change", () => send(last));
controls.addEventListener("submit", (event) => {
  event.preventDefault();
  send(last);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") send(event.dataTransfer.files[0]);
  });
}

try {
  const facts = await info();
  limit = facts.upload_limit_mb * 2 ** 20;
  byId("limit").textContent = `at most ${facts.upload_limit_mb} MB; embedded with ${facts.backbone}`;
  if (!facts.has_videos) controls.level.replaceChildren(controls.level.options[0]);
} catch (error) {
  showError(byId("error"), error);
}
