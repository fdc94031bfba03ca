// The canvases of page.html. serve.py puts this file and then page.js into its one script.

const INSET = 220;  // screen pixels across, at a scale of 1
const CONTEXT_PIXELS = 132;
const KEPT = 4;  // decoded images: the one shown, the two beside it, the one before
const OUTSIDE = "#6e6e6e";

let shownBitmap = null;  // null where there is no image to look at
let drawn = {};          // what the image's canvas has, and where: bitmap, left, top, width, height
let nPaintings = 0;
let painted = false;     // whether the state's pixel is on the screen; since when; with its image
let paintedAt = 0;
let seen = false;
// For measurements: [ms from a key's event to the next pixel painted, is it in another image].
window.paints = [];

// --- images are fetched and decoded before they are needed --------------------------------------

const pictures = new Map();  // index -> {bitmap, error, lost, ready}; the one last used is last

/* The image of this index: once `ready`, its `bitmap` or `error`; `lost` if that may pass. */
function picture(index) {
  let entry = pictures.get(index);
  if (!entry || entry.lost) {
    entry = {bitmap: null, error: null, lost: false};
    entry.ready = load(index).then(
      (bitmap) => { entry.bitmap = bitmap; },
      (error) => { entry.error = error.message; entry.lost = !error.unreadable; });
  }
  pictures.delete(index);
  pictures.set(index, entry);
  if (pictures.size > KEPT) {
    const [oldest, dropped] = pictures.entries().next().value;
    pictures.delete(oldest);
    dropped.ready.then(() => dropped.bitmap !== shownBitmap && dropped.bitmap?.close());
  }
  return entry;
}

async function load(index) {
  const failed = (message, unreadable) => Object.assign(new Error(message), {unreadable});
  let response;
  try {
    response = await fetch(url(`picture/${index}`));
  } catch {
    throw failed("the server does not answer", false);
  }
  if (!response.ok) throw failed((await response.json()).error, response.status === 422);
  try {
    return await createImageBitmap(
      await response.blob(), {colorSpaceConversion: "none", premultiplyAlpha: "none"});
  } catch (error) {
    throw failed(`the browser cannot show it (${error.message})`, true);
  }
}

// --- painting -----------------------------------------------------------------------------------

/* Paint the state's pixel; `pressed` is the time of the key's event that led to it. */
async function paintState(pressed, otherImage) {
  const number = ++nPaintings, entry = picture(state.image);
  painted = seen = false;
  if (!entry.bitmap && !entry.error) {
    clear(`reading ${state.name} ...`);
    await entry.ready;
    if (number !== nPaintings) return;
  }
  if (entry.bitmap) {
    shownBitmap = entry.bitmap;
    paint();
  } else {
    clear(`${state.name}: ${entry.error}`);
  }
  afterFrame(() => {
    if (number !== nPaintings) return;
    painted = true;
    seen = entry.bitmap !== null;
    paintedAt = performance.now();
    watch.start();
    if (pressed !== undefined) window.paints.push([paintedAt - pressed, otherImage]);
    if (state.image > 0) picture(state.image - 1);
    if (state.image + 1 < info.n_images) picture(state.image + 1);
    picture(state.image);
  });
}

/* Call when what was drawn so far is on the screen: a frame's callbacks come before its painting,
   a message sent from there comes after. */
function afterFrame(callback) {
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = callback;
    channel.port2.postMessage(0);
  });
}

/* An empty canvas' context, with one pixel for each of the screen's. */
function fit(canvas) {
  const width = Math.round(canvas.clientWidth * devicePixelRatio);
  const height = Math.round(canvas.clientHeight * devicePixelRatio);
  const context = canvas.getContext("2d");
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
  else context.clearRect(0, 0, width, height);
  return context;
}

/* A text in place of the image. */
function clear(text) {
  shownBitmap = null;
  drawn = {};
  for (const id of ["image", "marks", "inset", "context"]) fit($(id));
  $("notice").textContent = text;
  $("marks").setAttribute("aria-label", text);
}

function paint() {
  const {clientWidth, clientHeight} = $("view"), bitmap = shownBitmap, ratio = devicePixelRatio;
  const scale = ratio * Math.min(clientWidth / bitmap.width, clientHeight / bitmap.height);
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const left = Math.round((clientWidth * ratio - width) / 2);
  const top = Math.round((clientHeight * ratio - height) / 2);
  if (drawn.bitmap !== bitmap || drawn.left !== left || drawn.top !== top
      || drawn.width !== width || drawn.height !== height) {
    const context = fit($("image"));
    context.imageSmoothingEnabled = scale < 1;
    context.imageSmoothingQuality = "medium";
    context.drawImage(bitmap, left, top, width, height);
    drawn = {bitmap, left, top, width, height};
    $("notice").textContent = "";
  }
  paintMarks();
  paintCrops();
}

/* [y, x] of the file's pixel under the centre of a grid pixel [y, x]; exact, all are integers. */
function filePixel([y, x]) {
  const under = (c, n, n0) => {
    const numerator = (2 * c + 1) * n0;
    return (numerator - numerator % (2 * n)) / (2 * n);
  };
  return [under(y, state.grid[0], shownBitmap.height), under(x, state.grid[1], shownBitmap.width)];
}

/* [x, y] on the image's canvas of a grid pixel [y, x]. */
function onScreen(pixel) {
  const [y, x] = filePixel(pixel);
  return [drawn.left + (x + .5) * drawn.width / shownBitmap.width,
          drawn.top + (y + .5) * drawn.height / shownBitmap.height];
}

function paintMarks() {
  const context = fit($("marks")), unit = devicePixelRatio * info.ui_scale;
  const edge = Math.max(1, Math.round(info.edge_size * unit));
  const cell = drawn.width / shownBitmap.width;
  const radius = Math.max(info.marker_size * unit / 2, .75 * cell + edge);  // around the pixel
  if (showOthers) {
    for (const [y, x, label] of state.others) {
      paintOther(context, onScreen([y, x]), Math.round(radius / 2), unit, keyOf(label));
    }
  }
  const [x, y] = onScreen(state.pixel);
  context.lineWidth = edge;
  for (const [colour, r] of [["black", radius + edge], ["white", radius]]) {
    context.strokeStyle = colour;
    context.beginPath();
    context.arc(x, y, r, 0, 2 * Math.PI);
    context.stroke();
  }
  $("marks").setAttribute(
    "aria-label", `${state.name}: row ${state.pixel[0]}, column ${state.pixel[1]}`);
}

function paintOther(context, [x, y], radius, unit, text) {
  const line = Math.max(1, Math.round(devicePixelRatio));
  context.lineWidth = line;
  context.font = `bold ${Math.round(13 * unit)}px system-ui, sans-serif`;
  for (const [colour, grow] of [["black", line], ["white", 0]]) {
    const r = radius + grow;
    context.strokeStyle = context.fillStyle = colour;
    context.strokeRect(Math.round(x) - r - .5, Math.round(y) - r - .5, 2 * r + 1, 2 * r + 1);
    context.fillText(text, x + radius + 4 + grow, y + 4 * unit + grow);
  }
}

function paintCrops() {
  paintCrop($("inset"), Math.max(3, Math.floor(INSET / ZOOMS[zoom])));
  paintCrop($("context"), CONTEXT_PIXELS);
}

/* So many of the file's pixels across, with a box around the asked one. */
function paintCrop(canvas, columns) {
  const context = fit(canvas), {width, height} = canvas;
  const cell = width / columns, rows = Math.ceil(height / cell);
  const [y, x] = filePixel(state.pixel);
  const left = x - (columns >> 1), top = y - (rows >> 1);
  const x0 = Math.max(left, 0), x1 = Math.min(left + columns, shownBitmap.width);
  const y0 = Math.max(top, 0), y1 = Math.min(top + rows, shownBitmap.height);
  context.fillStyle = OUTSIDE;
  context.fillRect(0, 0, width, height);
  context.imageSmoothingEnabled = cell < 1;
  context.drawImage(shownBitmap, x0, y0, x1 - x0, y1 - y0, (x0 - left) * cell, (y0 - top) * cell,
                    (x1 - x0) * cell, (y1 - y0) * cell);
  const edge = (n) => Math.round(n * cell), line = Math.max(1, Math.round(devicePixelRatio));
  context.lineWidth = line;
  for (const [colour, out] of [["black", 1.5 * line], ["white", .5 * line]]) {
    context.strokeStyle = colour;
    context.strokeRect(edge(x - left) - out, edge(y - top) - out,
                       edge(x - left + 1) - edge(x - left) + 2 * out,
                       edge(y - top + 1) - edge(y - top) + 2 * out);
  }
}
