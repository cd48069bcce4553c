// A map of codes in a canvas: hover shows a text, a click or Enter asks for the text of that place, a line around points for what
// they have in common. Texts are set as text, never as HTML. `element`, `props`, `trigger` and `watch` are Gradio's.
const frame = element.querySelector(".latent-map");
const canvas = frame.querySelector("canvas");
const tip = frame.querySelector(".latent-map-tip");
const legend = frame.querySelector(".latent-map-legend");
const said = frame.querySelector(".latent-map-said");
const lassoButton = frame.querySelector(".latent-map-lasso");
const axes = frame.querySelector(".latent-map-axes");

const COLOURS = ["#4477aa", "#ee6677", "#228833", "#c9a800", "#33aacc", "#aa3377", "#ee7733", "#009988", "#888888"];
const SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const NEAR = 14; // pixels within which a point is meant
// Of so many points each is small, and a square, which is drawn in a tenth of a disc's time.
const SEVERAL = 800, MANY = 5000;

let data = { points: [], texts: [], colouring: null, axes: ["", ""] };
let box = { left: 0, top: 0, width: 1, height: 1 };
let cursor = null; // the place that was asked for, in the map's own numbers
let lasso = null; // pixels
let drawing = false;
let region = new Set();
// The points by themselves, so that a cross or a line that moves does not draw them anew.
const layer = document.createElement("canvas");
let stale = true;

const css = (name, otherwise) => getComputedStyle(frame).getPropertyValue(name).trim() || otherwise;

function measure() {
  // The ends of the axes, with a margin; a map of one point has a width too.
  const xs = data.points.map((p) => p[0]), ys = data.points.map((p) => p[1]);
  // Not as arguments, of which a browser takes some ten thousands.
  const ends = (v) => (v.length ? [v.reduce((a, b) => Math.min(a, b)), v.reduce((a, b) => Math.max(a, b))] : [-1, 1]);
  const [x0, x1] = ends(xs), [y0, y1] = ends(ys);
  const w = (x1 - x0) || 2, h = (y1 - y0) || 2;
  box = { left: x0 - 0.06 * w - (x1 === x0 ? 1 : 0), top: y1 + 0.06 * h + (y1 === y0 ? 1 : 0), width: 1.12 * w, height: 1.12 * h };
}
const toPixel = ([x, y]) => [
  ((x - box.left) / box.width) * canvas.clientWidth,
  ((box.top - y) / box.height) * canvas.clientHeight,
];
const toPlace = (px, py) => [
  box.left + (px / canvas.clientWidth) * box.width,
  box.top - (py / canvas.clientHeight) * box.height,
];

function colourOf(row) {
  const c = data.colouring, value = c ? c.values[row] : null;
  if (value === null || value === undefined) return "#8888884d";
  if (c.kind === "labels") return COLOURS[value % COLOURS.length];
  const t = c.highest > c.lowest ? (value - c.lowest) / (c.highest - c.lowest) : 0.5;
  const at = Math.min(t * (SCALE.length - 1), SCALE.length - 1.0001), low = Math.floor(at);
  return `rgb(${SCALE[low].map((v, i) => Math.round(v + (at - low) * (SCALE[low + 1][i] - v))).join(",")})`;
}

function drawPoints(ratio) {
  layer.width = canvas.width;
  layer.height = canvas.height;
  const g = layer.getContext("2d"), count = data.points.length;
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  const size = count > SEVERAL ? 3 : 4.5;
  const dot = count > MANY
    ? (px, py) => g.fillRect(px - size / 2, py - size / 2, size, size)
    : (px, py) => { g.beginPath(); g.arc(px, py, size, 0, 7); g.fill(); };
  data.points.forEach((point, row) => {
    g.globalAlpha = region.size && !region.has(row) ? 0.18 : 0.85;
    g.fillStyle = colourOf(row);
    dot(...toPixel(point));
  });
  stale = false;
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, canvas.clientWidth * ratio);
  canvas.height = Math.max(1, canvas.clientHeight * ratio);
  if (stale || layer.width !== canvas.width || layer.height !== canvas.height) drawPoints(ratio);
  const g = canvas.getContext("2d");
  g.drawImage(layer, 0, 0);
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.strokeStyle = css("--body-text-color", "#222");
  if (cursor) {
    const [px, py] = toPixel(cursor);
    g.lineWidth = 2;
    g.beginPath();
    g.arc(px, py, 8, 0, 7);
    g.moveTo(px - 14, py); g.lineTo(px - 5, py); g.moveTo(px + 5, py); g.lineTo(px + 14, py);
    g.moveTo(px, py - 14); g.lineTo(px, py - 5); g.moveTo(px, py + 5); g.lineTo(px, py + 14);
    g.stroke();
  }
  if (lasso && lasso.length > 1) {
    g.lineWidth = 1.5;
    g.setLineDash([5, 4]);
    g.beginPath();
    lasso.forEach(([px, py], i) => (i ? g.lineTo(px, py) : g.moveTo(px, py)));
    if (!drawing) g.closePath();
    g.stroke();
    g.setLineDash([]);
  }
}

function nearest(px, py) {
  let best = -1, least = Infinity;
  data.points.forEach((point, row) => {
    const [x, y] = toPixel(point), far = (x - px) ** 2 + (y - py) ** 2;
    if (far < least) { least = far; best = row; }
  });
  return { row: best, far: Math.sqrt(least) };
}

function showTip(row, px, py) {
  if (row < 0) { tip.hidden = true; return; }
  const c = data.colouring, value = c && c.values[row];
  const label = value === null || value === undefined ? "" : c.kind === "labels" ? c.labels[value] : Number(value).toPrecision(3);
  tip.firstElementChild.textContent = data.texts[row];
  tip.lastElementChild.textContent = label;
  tip.hidden = false;
  // Inside the map, on whichever side there is room.
  const width = tip.offsetWidth, height = tip.offsetHeight;
  tip.style.left = `${Math.max(0, Math.min(px + 12, canvas.clientWidth - width))}px`;
  tip.style.top = `${py + 14 + height > canvas.clientHeight ? Math.max(0, py - height - 10) : py + 14}px`;
}

function ask(place) {
  cursor = place;
  draw();
  trigger("place", { x: place[0], y: place[1] });
}

function choose(rows, outline) {
  region = new Set(rows);
  lasso = outline;
  stale = true;
  draw();
  said.textContent = `${rows.length} points chosen`;
  trigger("region", { rows });
}

function inside([px, py], outline) {
  let odd = false;
  for (let i = 0, j = outline.length - 1; i < outline.length; j = i++) {
    const [xi, yi] = outline[i], [xj, yj] = outline[j];
    if (yi > py !== yj > py && px < ((xj - xi) * (py - yi)) / (yj - yi) + xi) odd = !odd;
  }
  return odd;
}

const at = (event) => {
  const r = canvas.getBoundingClientRect();
  return [event.clientX - r.left, event.clientY - r.top];
};
const lassoIsOn = () => lassoButton.getAttribute("aria-pressed") === "true";

canvas.addEventListener("pointerdown", (event) => {
  if (!(lassoIsOn() || event.shiftKey)) return;
  drawing = true;
  lasso = [at(event)];
  canvas.setPointerCapture(event.pointerId);
  event.preventDefault();
});
canvas.addEventListener("pointermove", (event) => {
  const [px, py] = at(event);
  if (drawing) { lasso.push([px, py]); draw(); return; }
  const found = nearest(px, py);
  showTip(found.far < NEAR ? found.row : -1, px, py);
});
canvas.addEventListener("pointerup", (event) => {
  const [px, py] = at(event);
  if (!drawing) {
    const found = nearest(px, py);
    ask(found.far < NEAR / 2 ? data.points[found.row].slice() : toPlace(px, py));
    return;
  }
  drawing = false;
  const rows = [];
  data.points.forEach((point, row) => { if (inside(toPixel(point), lasso)) rows.push(row); });
  choose(rows, lasso);
});
canvas.addEventListener("pointercancel", () => { drawing = false; lasso = null; draw(); });
canvas.addEventListener("pointerleave", () => { if (!drawing) tip.hidden = true; });

// Arrow keys move a cross, Enter asks for the text there, Escape lets a region go.
canvas.addEventListener("keydown", (event) => {
  const step = event.shiftKey ? 0.1 : 0.02;
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (event.key in moves) {
    const [dx, dy] = moves[event.key];
    cursor = cursor || [box.left + box.width / 2, box.top - box.height / 2];
    cursor = [cursor[0] + dx * step * box.width, cursor[1] + dy * step * box.height];
    const [px, py] = toPixel(cursor), found = nearest(px, py);
    showTip(found.far < 3 * NEAR ? found.row : -1, px, py);
    said.textContent = found.row < 0 ? "" : `near: ${data.texts[found.row]}`;
    draw();
  } else if (event.key === "Enter" || event.key === " ") {
    ask(cursor || [box.left + box.width / 2, box.top - box.height / 2]);
  } else if (event.key === "Escape") {
    region = new Set(); lasso = null; tip.hidden = true; stale = true; draw();
  } else return;
  event.preventDefault();
});
lassoButton.addEventListener("click", () => {
  const on = !lassoIsOn();
  lassoButton.setAttribute("aria-pressed", String(on));
  canvas.style.touchAction = on ? "none" : "auto";
});

function writeLegend() {
  legend.replaceChildren();
  const c = data.colouring;
  if (!c) return;
  if (c.kind === "labels") {
    c.labels.forEach((label, number) => {
      const button = document.createElement("button");
      const dot = document.createElement("span");
      dot.className = "latent-map-dot";
      dot.style.background = COLOURS[number % COLOURS.length];
      button.type = "button";
      button.title = "Choose these points";
      button.append(dot, document.createTextNode(`${label} (${c.counts[number]})`));
      button.addEventListener("click", () => {
        choose(c.values.flatMap((value, row) => (value === number ? [row] : [])), null);
      });
      legend.append(button);
    });
  } else {
    const bar = document.createElement("span");
    bar.className = "latent-map-bar";
    bar.style.background = `linear-gradient(90deg, ${SCALE.map((v) => `rgb(${v.join(",")})`).join(",")})`;
    legend.append(Number(c.lowest.toPrecision(3)), bar, Number(c.highest.toPrecision(3)));
  }
}

function show() {
  const before = data.points;
  // Plain numbers and texts: what Gradio hands over is watched, and each look at it takes its time.
  data = props.value ? JSON.parse(JSON.stringify(props.value)) : data;
  if (JSON.stringify(before) !== JSON.stringify(data.points)) {
    // Another map: nothing of the old one is meant any more.
    cursor = null; lasso = null; region = new Set();
  }
  axes.textContent = data.points.length ? `→ ${data.axes[0]}${data.axes[1] ? `   ↑ ${data.axes[1]}` : ""}` : "";
  tip.hidden = true;
  stale = true;
  measure();
  writeLegend();
  draw();
}
new ResizeObserver(draw).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
watch("value", show);
show();
