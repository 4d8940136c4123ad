import {
  address, api, byId, counted, el, empty, filterOf, hitCard, info, labels, later, latest, listAddress, media, showError,
  videosOf,
} from "./common.js";
import { step, togglePlay, watch } from "./players.js";

const parameters = new URLSearchParams(location.search);
const video = parameters.get("video") || "";
let study = parameters.get("id") || "";
let longest = Infinity;
const controls = byId("controls");
byId("back").href = listAddress();

// What the address, and the links to the neighbours, keep.
function kept() {
  return {
    similarity: controls.similarity.value === "mean" ? "" : controls.similarity.value,
    where: filterOf(controls.where),
    k: controls.k.value === "12" ? "" : controls.k.value,
    same: controls.same.checked,
  };
}

function restore() {
  controls.where.value = parameters.get("where") || "";
  controls.same.checked = parameters.get("same") === "true";
  for (const name of ["similarity", "k"]) {
    const wanted = parameters.get(name);
    if ([...controls[name].options].some((option) => option.value === wanted)) controls[name].value = wanted;
  }
}

function clip(one) {
  const player = el("video", {
    muted: true,
    loop: true,
    controls: true,
  });
  player.dataset.src = media("clip", one.video_id);
  player.dataset.poster = media("still", one.video_id);
  player.playsInline = true;
  player.dataset.fps = one.fps || 30;
  player.setAttribute("aria-label", `${one.view || "video"} ${one.video_id}`);
  const caption = el("figcaption", {}, el("span", {}, one.view || one.video_id));
  if (one.num_frames > longest) caption.append(el("span", { class: "patient" }, `the first ${longest} of ${one.num_frames} frames`));
  if (!video) {
    const like = el("a", { href: address("/study", { id: study, video: one.video_id }) }, "similar videos");
    like.setAttribute("aria-label", `videos similar to ${one.video_id}`);
    caption.append(like);
  }
  const box = el("figure", { class: "clip" }, player, caption);
  player.addEventListener("loadeddata", () => box.classList.add("ready"));
  player.addEventListener("error", () => {
    box.classList.add("gone");
    player.replaceWith(el("p", {}, `${one.view || one.video_id}: video not found. Its file has moved or can't be read; search works without it.`));
    if (!document.querySelector("video")) document.querySelector(".pressed")?.remove();
  });
  return box;
}

function show(item) {
  document.title = `${item.id} · panecho-embed`;
  const videos = item.videos;
  const query = byId("query");
  query.replaceChildren(
    el(
      "div",
      { class: "study-head" },
      el("h1", {}, item.id),
      el("span", { class: "patient" }, video ? el("a", { href: address("/study", { id: study }) }, `study ${study}`) : `patient ${item.patient_id} · ${videosOf(item)}`),
      labels(item.labels),
    ),
    el("div", { class: videos.length > 4 ? "clips many" : "clips" }, ...videos.map(clip)),
  );
  for (const player of query.querySelectorAll("video")) watch(player);
  if (videos.length) {
    const button = (text, name, key, run) => {
      const made = el("button", { type: "button", title: `${name} (${key})` }, text);
      made.addEventListener("click", run);
      return made;
    };
    query.append(
      el(
        "div",
        { class: "pressed" },
        button("Play / pause", "all videos", "space", togglePlay),
        button("‹ frame", "one frame back", ",", () => step(-1)),
        button("frame ›", "one frame forward", ".", () => step(1)),
      ),
    );
  }
}

const load = latest(byId("hits"), async (signal) => {
  const wanted = {
    ...(video ? { video, level: "video" } : { study, level: "study" }),
    similarity: controls.similarity.value,
    where: filterOf(controls.where),
    k: controls.k.value,
    include_same_patient: controls.same.checked,
  };
  const keep = kept();
  history.replaceState(history.state, "", address("/study", { id: study, video, ...keep }));
  try {
    const found = await api("/api/search", wanted, { signal });
    byId("hits").replaceChildren(...found.hits.map((hit) => hitCard(hit, keep)));
    if (!found.hits.length) {
      const whose = keep.same ? "" : " of another patient";
      byId("hits").append(empty(`No ${found.level}${whose}${keep.where ? " matches the filter" : " is in this file"}.`));
    }
    byId("count").textContent = `of ${counted(found.candidates, ...(found.level === "study" ? ["study", "studies"] : ["video", "videos"]))}${found.note ? `; ${found.note}` : ""}`;
    byId("hits").classList.remove("stale");
    showError(byId("where-error"), null, controls.where);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    byId("hits").classList.add("stale");
    byId("count").textContent = "";
    showError(byId("where-error"), error, wanted.where ? controls.where : null);
  }
});

const soon = later(load, 300);
controls.addEventListener("input", soon);
controls.addEventListener("submit", (event) => {
  event.preventDefault();
  soon.now();
});

try {
  const [facts, item] = await Promise.all([
    info(), video ? api("/api/video", { id: video }) : api("/api/study", { id: study }),
  ]);
  study = item.study_id;
  longest = facts.clip_limit_frames;
  for (const option of [...controls.similarity.options]) {
    if (!facts.similarities.includes(option.value)) option.remove();
  }
  controls.similarity.closest("label").hidden = Boolean(video);
  restore();
  show(item);
  await load();
} catch (error) {
  byId("nearest").hidden = true;
  byId("query").replaceChildren(
    el("h1", {}, error.status === 404 ? `There is no such ${video ? "video" : "study"}` : "It can't be shown"),
    el("p", { class: "error", role: "alert" }, error.message),
    el("p", {}, el("a", { class: "button", href: "/" }, "To all studies")),
  );
}
