import { api, byId, counted, empty, filterOf, hitCard, info, later, showError } from "./common.js";

const drop = byId("drop");
const input = byId("file-input");
const controls = byId("controls");
let limit = Infinity;
let last = null;
let kept = null;
let current = null;

const megabytes = (bytes) => (bytes / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 });

// Counts the seconds beside what is said, so that a reader of the screen hears it once.
function waiting(text) {
  const began = Date.now();
  const tell = () => {
    const seconds = Math.round((Date.now() - began) / 1000);
    byId("seconds").textContent = seconds ? `${seconds} s` : "";
  };
  byId("count").textContent = text;
  byId("cancel").hidden = false;
  drop.setAttribute("aria-busy", "true");
  const clock = setInterval(tell, 1000);
  return (isLast) => {
    clearInterval(clock);
    if (!isLast) return;
    byId("seconds").textContent = "";
    byId("cancel").hidden = true;
    drop.removeAttribute("aria-busy");
  };
}

function show(found) {
  byId("hits").replaceChildren(...found.hits.map((hit) => hitCard(hit)));
  if (!found.hits.length) byId("hits").append(empty("Nothing matches the filter."));
  const all = counted(found.candidates, ...(found.level === "study" ? ["study", "studies"] : ["video", "videos"]));
  byId("count").textContent = `The nearest of ${all}${found.note ? `; ${found.note}` : ""}`;
}

// Whatever is asked, only the newest question is answered.
function asking() {
  current?.abort();
  current = new AbortController();
  showError(byId("error"), null, controls.where);
  byId("hits").removeAttribute("aria-busy");
  return current;
}

async function answered(mine, run, field) {
  try {
    await run({ level: controls.level.value, where: filterOf(controls.where), k: 12 });
  } catch (error) {
    if (mine !== current) return;
    byId("count").textContent = error.name === "AbortError" ? "Cancelled." : "";
    if (error.name !== "AbortError") showError(byId("error"), error, field);
  }
}

async function send(file) {
  if (!file) return;
  last = file;
  kept = null;
  const mine = asking();
  byId("hits").replaceChildren();
  byId("preview").hidden = true;
  byId("drop-text").textContent = file.name;
  if (file.size > limit) {
    byId("count").textContent = "";
    showError(byId("error"), new Error(`${file.name} has ${megabytes(file.size)} MB; at most ${megabytes(limit)} MB are taken.`));
    return;
  }
  const done = waiting("Embedding it; the first one takes longer, for the model is loaded.");
  let other = false;
  await answered(mine, async ({ level, k }) => {
    // Without the filter: a mistake in it must not cost an upload.
    const found = await api("/api/search", { name: file.name, level, k }, {
      method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" }, signal: mine.signal,
    });
    if (mine !== current) return;
    kept = found.upload;
    const preview = byId("preview");
    preview.querySelector("img").src = found.preview;
    preview.querySelector("figcaption").textContent = [file.name, ...found.notes].join("; ");
    preview.hidden = false;
    other = filterOf(controls.where) !== "" || controls.level.value !== level;
    if (!other) show(found);
  });
  done(mine === current);
  input.value = "";
  if (other) await again();
}

// Another filter or level: the embedding is still there, and the video is not sent again.
async function again() {
  if (!kept) return;
  const mine = asking();
  byId("hits").setAttribute("aria-busy", "true");
  await answered(mine, async (wanted) => {
    try {
      const found = await api("/api/search", { upload: kept, ...wanted }, { signal: mine.signal });
      if (mine === current) show(found);
    } catch (error) {
      if (error.status !== 404 || mine !== current) throw error;
      await send(last);
    }
  }, controls.where);
  if (mine === current) byId("hits").removeAttribute("aria-busy");
}

const soon = later(again, 300);
input.addEventListener("change", () => send(input.files[0]));
byId("cancel").addEventListener("click", () => current?.abort());
controls.addEventListener("input", soon);
controls.addEventListener("submit", (event) => {
  event.preventDefault();
  soon.now();
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
  byId("limit").textContent = `DICOM, AVI, MP4 ...; at most ${facts.upload_limit_mb.toLocaleString("en")} MB and ${facts.upload_limit_frames.toLocaleString("en")} frames to encode; embedded with ${facts.backbone}`;
  if (!facts.has_videos) controls.level.replaceChildren(controls.level.options[0]);
} catch (error) {
  showError(byId("error"), error);
}
