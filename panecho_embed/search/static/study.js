import { address, api, byId, el, empty, hitCard, info, labels, later, latest, showError, step, togglePlay } from "./common.js";

const parameters = new URLSearchParams(location.search);
const study = parameters.get("id") || "";
const video = parameters.get("video") || "";
const controls = byId("controls");

function clip(one) {
  const player = el("video", {
    src: address("/api/clip", { video: one.video_id }),
    muted: true,
    loop: true,
    autoplay: !matchMedia("(prefers-reduced-motion: reduce)").matches,
    controls: true,
    preload: "auto",
    title: one.video_id,
  });
  player.playsInline = true;
  player.dataset.fps = one.fps || 30;
  player.setAttribute("aria-label", `${one.view || "video"} ${one.video_id}`);
  const box = el("figure", { class: "clip" }, player, one.view ? el("span", { class: "view" }, one.view) : null);
  player.addEventListener("error", () => {
    box.className = "clip gone";
    box.replaceChildren(`${one.view || one.video_id}: video not found. Its file has moved or can't be read; search works without it.`);
    if (!document.querySelector("video")) document.querySelector(".pressed")?.remove();
  });
  return box;
}

function show(item) {
  document.title = `${item.id} · panecho-embed`;
  const videos = video ? item.videos.filter((one) => one.video_id === video) : item.videos;
  const query = byId("query");
  query.replaceChildren(
    el(
      "div",
      { class: "study-head" },
      el("h1", {}, video || item.id),
      el("span", { class: "patient" }, video ? el("a", { href: address("/study", { id: item.id }) }, `study ${item.id}`) : `patient ${item.patient_id}`),
      labels(item.labels),
    ),
    el("div", { class: "clips" }, ...videos.map(clip)),
  );
  if (videos.length) {
    const button = (text, title, run) => {
      const made = el("button", { type: "button", title }, text);
      made.addEventListener("click", run);
      return made;
    };
    query.append(
      el(
        "div",
        { class: "pressed" },
        button("Play / pause", "space", togglePlay),
        button("‹ frame", ",", () => step(-1)),
        button("frame ›", ".", () => step(1)),
      ),
    );
  }
}

const load = latest(byId("hits"), async (signal) => {
  const wanted = {
    ...(video ? { video, level: "video" } : { study, level: "study" }),
    similarity: controls.similarity.value,
    where: controls.where.value.trim(),
    k: controls.k.value,
    include_same_patient: controls.same.checked,
  };
  try {
    const found = await api("/api/search", wanted, { signal });
    byId("hits").replaceChildren(...found.hits.map(hitCard));
    if (!found.hits.length) byId("hits").append(empty("Nothing to compare with: no other patient's study matches the filter."));
    byId("count").textContent = `of ${found.candidates.toLocaleString("en")} ${found.level === "study" ? "studies" : "videos"}${found.note ? `; ${found.note}` : ""}`;
    showError(byId("where-error"), null, controls.where);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    byId("hits").replaceChildren();
    byId("count").textContent = "";
    showError(byId("where-error"), error, wanted.where ? controls.where : null);
  }
});

controls.addEventListener("input", later(() => load()));
controls.addEventListener("submit", (event) => {
  event.preventDefault();
  load();
});

try {
  const [facts, item] = await Promise.all([info(), api("/api/study", { id: study })]);
  for (const option of [...controls.similarity.options]) {
    if (!facts.similarities.includes(option.value)) option.remove();
  }
  if (video) controls.similarity.closest("label").hidden = true;
  show(item);
  await load();
} catch (error) {
  byId("nearest").hidden = true;
  byId("query").replaceChildren(
    el("h1", {}, "There is no such study"),
    el("p", { class: "error", role: "alert" }, error.message),
    el("p", {}, el("a", { href: "/" }, "To all studies")),
  );
}
