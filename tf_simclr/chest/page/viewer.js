"use strict";
// Shows one radiograph as physicians look at it: zoom, pan, window and level over every pixel, the map as a layer.
//
// The grey levels are kept as numbers of 16 bits, with copies of half, a quarter … the side.  Only what is in view is
// drawn, from the copy that is nearest to the screen's pixels, so each drawing costs the same, however large the picture.

class Viewer {
  constructor(element) {
    this.element = element;
    this.stage = element.querySelector(".stage");
    this.canvas = element.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.controls = {};
    for (const input of element.querySelectorAll("[name]")) this.controls[input.name] = input;
    element.addEventListener("input", () => this.fromControls());
    element.querySelector(".reset").addEventListener("click", () => this.reset());
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.stage.addEventListener("contextmenu", (event) => event.preventDefault());
    this.pointers = new Map();
    for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      this.stage.addEventListener(kind, (event) => this.pointer(event));
    }
    new ResizeObserver(() => this.later()).observe(this.stage);
    window.addEventListener("beforeprint", () => this.draw());
    this.clear();
  }

  clear() {
    this.copies = [];
    this.map = null;
    this.element.hidden = true;
  }

  /** Takes a picture: what the server says of it, and its PNG. */
  async load(about, png) {
    const first = await levels(about, png);
    this.about = about;
    this.map = null;
    this.copies = [first];
    while (Math.min(this.copies.at(-1).width, this.copies.at(-1).height) > 256) this.copies.push(half(this.copies.at(-1)));
    this.element.hidden = false;
    this.stage.style.aspectRatio = `${about.width} / ${about.height}`;
    for (const [place, side] of Object.entries(about.sides)) {
      this.stage.querySelector(`.side.${place}`).textContent = side;
    }
    this.stage.querySelector(".view").textContent = about.view;
    this.element.querySelector(".header").textContent = about.said;
    this.stage.setAttribute("aria-label", "The radiograph, without a map yet");
    this.reset();
  }

  /** Lays a map over the picture; its text is what the picture says to who does not see it. */
  async lay(image) {
    await image.decode();
    this.map = image;
    this.stage.setAttribute("aria-label", image.alt);
    this.later();
  }

  reset() {
    const [low, high] = this.about.window;
    Object.assign(this, { zoom: 1, x: 0.5, y: 0.5, level: (low + high) / 2, width: high - low, inverted: false });
    this.toControls();
  }

  toControls() {
    const { zoom, level, width, invert } = this.controls;
    zoom.value = Math.log2(this.zoom);
    level.value = 100 * this.level;
    width.value = 100 * this.width;
    invert.checked = this.inverted;
    this.later();
  }

  fromControls() {
    const { zoom, level, width, invert } = this.controls;
    this.zoom = 2 ** zoom.value;
    this.level = level.value / 100;
    this.width = Math.max(width.value / 100, 0.001);
    this.inverted = invert.checked;
    this.later();
  }

  /** Screen pixels for each of the picture's where it just fits. */
  get fit() {
    return Math.min(this.canvas.width / this.about.width, this.canvas.height / this.about.height);
  }

  later() {
    if (this.waiting || !this.copies.length) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = null; this.draw(); });
  }

  draw() {
    if (!this.copies.length || !this.stage.clientWidth) return;
    const density = window.devicePixelRatio || 1;
    const wide = Math.round(this.stage.clientWidth * density), high = Math.round(this.stage.clientHeight * density);
    if (this.canvas.width !== wide || this.canvas.height !== high) Object.assign(this.canvas, { width: wide, height: high });
    const scale = this.fit * this.zoom;
    const half = { x: wide / 2 / (scale * this.about.width), y: high / 2 / (scale * this.about.height) };
    this.x = half.x >= 0.5 ? 0.5 : Math.min(Math.max(this.x, half.x), 1 - half.x);
    this.y = half.y >= 0.5 ? 0.5 : Math.min(Math.max(this.y, half.y), 1 - half.y);
    const left = wide / 2 - this.x * this.about.width * scale, top = high / 2 - this.y * this.about.height * scale;
    const which = Math.min(Math.max(Math.floor(Math.log2(1 / scale) + 0.5), 0), this.copies.length - 1);
    const copy = this.copies[which], grey = this.shades();
    const columns = places(wide, left, scale * this.about.width / copy.width, copy.width);
    const rows = places(high, top, scale * this.about.height / copy.height, copy.height);
    const image = this.context.createImageData(wide, high), out = new Uint32Array(image.data.buffer);
    for (let row = 0, at = 0; row < high; row++) {
      const start = rows[row] * copy.width;
      for (let column = 0; column < wide; column++, at++) {
        const inside = rows[row] >= 0 && columns[column] >= 0;
        out[at] = 0xff000000 | (inside ? grey[copy.values[start + columns[column]]] * 0x010101 : 0);
      }
    }
    this.context.putImageData(image, 0, 0);
    const opacity = this.controls.opacity.value / 100;
    if (this.map && opacity > 0) {
      this.context.globalAlpha = opacity;
      this.context.drawImage(this.map, left, top, this.about.width * scale, this.about.height * scale);
      this.context.globalAlpha = 1;
    }
    this.stage.style.touchAction = this.zoom > 1 ? "none" : "pan-y";
  }

  /** The grey of each level on the screen, by the window. */
  shades() {
    const found = new Uint8ClampedArray(65536), low = this.level - this.width / 2;
    for (let value = 0; value < 65536; value++) {
      const share = (value / 65535 - low) / this.width;
      found[value] = 255 * (this.inverted ? 1 - share : share);
    }
    return found;
  }

  pan(right, down) {
    const scale = this.fit * this.zoom / (window.devicePixelRatio || 1);
    this.x -= right / (scale * this.about.width);
    this.y -= down / (scale * this.about.height);
    this.later();
  }

  /** Zooms about a place of the stage, in its pixels from the centre. */
  by(factor, right = 0, down = 0) {
    const zoom = Math.min(Math.max(this.zoom * factor, 1), 2 ** this.controls.zoom.max);
    this.pan(-right, -down);
    this.zoom = zoom;
    this.pan(right, down);
    this.toControls();
  }

  grey(width, level) {
    this.width = Math.min(Math.max(this.width * width, 0.001), 2);
    this.level = Math.min(Math.max(this.level + level * this.width, 0), 1);
    this.toControls();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 40;
    const keys = {
      ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step), ArrowDown: () => this.pan(0, -step),
      "+": () => this.by(1.25), "=": () => this.by(1.25), "-": () => this.by(0.8), "0": () => this.reset(),
      "[": () => this.grey(0.9, 0), "]": () => this.grey(1 / 0.9, 0), ",": () => this.grey(1, -0.05), ".": () => this.grey(1, 0.05),
      i: () => { this.inverted = !this.inverted; this.toControls(); },
      m: () => { this.controls.opacity.value = Number(this.controls.opacity.value) ? 0 : 60; this.later(); },
    };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  }

  wheel(event) {
    if (!event.ctrlKey && this.zoom === 1 && event.deltaY > 0) return;  // the page may scroll on
    event.preventDefault();
    const box = this.stage.getBoundingClientRect();
    const from = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
    this.by(2 ** (-event.deltaY / 400), ...from);
  }

  /** One finger or button pans, with Shift or the right button it sets window and level; two fingers zoom. */
  pointer(event) {
    const before = this.pointers.get(event.pointerId);
    if (event.type === "pointerup" || event.type === "pointercancel") {
      this.pointers.delete(event.pointerId);
      return;
    }
    if (event.type === "pointerdown") this.stage.setPointerCapture(event.pointerId);
    else if (!before) return;
    const now = { x: event.clientX, y: event.clientY, grey: event.type === "pointerdown" ? event.button === 2 : before.grey };
    if (before) {
      const other = [...this.pointers].find(([number]) => number !== event.pointerId)?.[1];
      const right = now.x - before.x, down = now.y - before.y;
      if (other) {
        this.by(Math.hypot(now.x - other.x, now.y - other.y) / Math.max(Math.hypot(before.x - other.x, before.y - other.y), 1));
      } else if (now.grey || event.shiftKey) this.grey(1.005 ** right, down / 400);
      else this.pan(right, down);
    }
    this.pointers.set(event.pointerId, now);
  }
}

/** For each pixel of the screen the picture's, or -1 beside it. */
function places(count, start, scale, size) {
  return Int32Array.from({ length: count }, (_, at) => {
    const found = Math.floor((at + 0.5 - start) / scale);
    return found >= 0 && found < size ? found : -1;
  });
}

/** Every grey level of a PNG from the server as 16 bits; in strips, for some browsers limit a canvas. */
async function levels({ width, height, bits }, png) {
  const whole = await createImageBitmap(png, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const values = new Uint16Array(width * height), strip = Math.max(1, Math.floor(2 ** 21 / width));
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height: Math.min(strip, height) });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += strip) {
    const rows = Math.min(strip, height - top);
    context.drawImage(whole, 0, top, width, rows, 0, 0, width, rows);
    const { data } = context.getImageData(0, 0, width, rows);
    for (let from = 0, to = top * width; from < data.length; from += 4, to++) {
      values[to] = bits > 8 ? data[from] << 8 | data[from + 1] : data[from] * 257;
    }
  }
  whole.close();
  return { width, height, values };
}

/** A copy of half the side, each pixel the mean of four. */
function half({ width, height, values }) {
  const small = { width: width >> 1, height: height >> 1 };
  small.values = new Uint16Array(small.width * small.height);
  for (let row = 0, to = 0; row < small.height; row++) {
    for (let column = 0, from = 2 * row * width; column < small.width; column++, from += 2, to++) {
      small.values[to] = (values[from] + values[from + 1] + values[from + width] + values[from + width + 1] + 2) >> 2;
    }
  }
  return small;
}
