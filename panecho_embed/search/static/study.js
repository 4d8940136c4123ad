import {
  address, api, byId, counted, el, empty, filterOf, hitCard, info, labels, later, latest, listAddress, moves, showError,
  step, togglePlay,
} from "./common.js";

const parameters = new URLSearchParams(location.search);
const study = parameters.get("id") || "";
const video = parameters.get("video") || "";
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
    src: address("/api/clip", { video: one.video_id }),
    poster: address("/api/still", { video: one.video_id }),
    muted: true,
    loop: true,
    autoplay: moves(),
    controls: true,
    preload: "auto",
  });
  player.playsInline = true;
  player.dataset.fps = one.fps || 30;
  player.setAttribute("aria-label", `${one.view || "video"} ${one.video_id}`);
  const caption = el("figcaption", {}, el("span", {}, one.view || one.video_id));
  if (!video) {
    const like = el("a", { href: address("/study", { id: study, video: one.video_id }) }, "similar videos");
    like.setAttribute("aria-label", `videos similar to ${one.video_id}`);
    caption.append(like);
  }
  const box = el("figure", { class: "clip" }, player, caption);
  player.addEventListener("error", () => {
    box.classList.add("gone");
    player.replaceWith(el("p", {}, `${one.view || one.video_id}: video not found. Its file has moved or can't be read; search works without it.`));
    if (!document.querySelector("video")) document.querySelector(".pressed")?.remove();
  });
  return box;
}

function show(item) {
  document.title = `${video || item.id} · panecho-embed`;
  const videos = video ? item.videos.filter((one) => one.video_id === video) : item.videos;
  const query = byId("query");
  query.replaceChildren(
    el(
      "div",
      { class: "study-head" },
      el("h1", {}, video || item.id),
      el("span", { class: "patient" }, video ? el("a", { href: address("/study", { id: item.id }) }, `study ${item.id}`) : `patient ${item.patient_id} · ${counted(videos.length, "video", "videos")}`),
      labels(item.labels),
    ),
    el("div", { class: "clips" }, ...videos.map(clip)),
  );
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

controls.addEventListener("input", later(load, 300));
controls.addEventListener("submit", (event) => {
  event.preventDefault();
  load();
});

try {
  const [facts, item] = await Promise.all([info(), api("/api/study", { id: study })]);
  for (const option of [...controls.similarity.options]) {
    if (!facts.similarities.includes(option.value)) option.remove();
  }
  if (video) {
    if (!item.videos.some((one) => one.video_id === video)) throw new Error(`${study} has no video called ${video}.`);
    controls.similarity.closest("label").hidden = true;
  }
  restore();
  show(item);
  await load();
} catch (error) {
  byId("nearest").hidden = true;
  byId("query").replaceChildren(
    el("h1", {}, "There is no such study"),
    el("p", { class: "error", role: "alert" }, error.message),
    el("p", {}, el("a", { class: "button", href: "/" }, "To all studies")),
  );
}
