// Videos that are loaded and played only while they are seen: a study may have a hundred.

let playing = true;
const seen = new Set();

const start = (video) => video.play().catch(() => {});

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) {
      seen.delete(target);
      target.pause();
      continue;
    }
    seen.add(target);
    if (!target.src) {
      target.poster = target.dataset.poster;
      target.src = target.dataset.src;
    }
    if (playing) start(target);
  }
});

// A video with its addresses in data-src and data-poster.
export const watch = (video) => observer.observe(video);

export function hold(still) {
  playing = !still;
  for (const video of seen) still ? video.pause() : start(video);
}

export const togglePlay = () => hold([...seen].some((video) => !video.paused));

export function step(direction) {
  playing = false;
  for (const video of seen) {
    video.pause();
    const fps = Number(video.dataset.fps) || 30;
    const last = Math.max(0, (video.duration || 0) - 0.5 / fps);
    video.currentTime = Math.min(last, Math.max(0, video.currentTime + direction / fps));
  }
}
